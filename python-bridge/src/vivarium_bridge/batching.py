"""How the rows of one optimizer step are cut into micro-batches. Pure: tested without torch."""

from itertools import islice

from . import _wire as wire
from .masking import TokenRow


def micro_batches(rows: list[TokenRow], window: list[int], training: wire.TrainingArguments) -> list[list[int]]:
    """Cut one optimizer step into pieces that are computed together.

    The step's loss is a sum over its target tokens, so every cut gives the same update up to rounding. What changes is
    the padding, and so the time.

    Args:
        rows: All rows of the data set.
        window: Indices of the rows of this step, from ``order.step_window``.
        training: ``batching`` and ``per_device_train_batch_size``.

    Returns:
        Row indices of each micro-batch; together they are those of the window. ``in_order``: as drawn. ``by_length``:
        rows of similar length together. ``packed``: at most as many tokens as a full rectangle of the longest row.
    """
    size = training.per_device_train_batch_size
    if training.batching == "packed":
        longest = max((len(rows[index].ids) for index in window), default=0)
        return first_fit_decreasing(window, [len(row.ids) for row in rows], size * longest)
    if training.batching == "by_length":
        window = sorted(window, key=lambda index: len(rows[index].ids))  # stable: ties as drawn
    remaining = iter(window)
    return [list(chunk) for chunk in iter(lambda: tuple(islice(remaining, size)), ())]


def first_fit_decreasing(items: list[int], sizes: list[int], capacity: int) -> list[list[int]]:
    """Put items into few bins: the largest first, each into the first bin that has room.

    Source: Johnson 1973, "Near-optimal bin packing algorithms": at most 11/9 of the optimum, plus one.

    Args:
        items: Indices into ``sizes``.
        sizes: In any unit.
        capacity: Of a bin, in the same unit; no item may be larger.
    """
    bins: list[list[int]] = []
    free: list[int] = []
    for item in sorted(items, key=lambda index: -sizes[index]):
        place = next((index for index, room in enumerate(free) if room >= sizes[item]), len(bins))
        if place == len(bins):
            bins.append([])
            free.append(capacity)
        bins[place].append(item)
        free[place] -= sizes[item]
    return bins


def cyclic_window(n_rows: int, size: int, step: int) -> list[int]:
    """The rows of one step where rows come in the order of their file, again and again.

    Args:
        n_rows: Rows of the file.
        size: Rows of a step; the last step of each round has what is left.
        step: Counts from 0.
    """
    start = step * size % (-(-n_rows // size) * size)
    return list(range(start, min(start + size, n_rows)))
