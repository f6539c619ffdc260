"""How rows lie in the rectangle that the model computes."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .masking import TokenRow


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows in a rectangle.

    Attributes:
        ids: ``[B, T]`` token ids on the model's device.
        inputs: What tells the model where rows end: an attention mask, or positions for rows packed into one.
        starts: Where each row starts in the rectangle read line by line.
        lengths: Tokens of each row.
    """

    ids: Any
    inputs: dict[str, Any]
    starts: list[int]
    lengths: list[int]

    @property
    def slots(self) -> int:
        """Positions that are computed, padding included."""
        return self.ids.numel()


def padded(rows: list[TokenRow], device: Any) -> Layout:
    """One row a line, padded on the right: ``[B, T]``."""
    import torch

    lengths = [len(row.ids) for row in rows]
    width = max(lengths)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    starts = [index * width for index in range(len(rows))]
    return Layout(ids.to(device), {"attention_mask": mask.long().to(device)}, starts, lengths)


def packed(rows: list[TokenRow], device: Any) -> Layout:
    """All rows one after another in one line: ``[1, T]``.

    Positions start anew with each row, which is how transformers finds the rows, and only while it is given neither
    an attention mask nor a cache of keys and values: a mask of ones makes all rows see each other.

    Source: transformers ``masking_utils._preprocess_mask_arguments`` (5.23.0).
    """
    import torch

    lengths = [len(row.ids) for row in rows]
    ids = torch.tensor([[token for row in rows for token in row.ids]])
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    starts = [0, *accumulate(lengths)][:-1]
    return Layout(ids.to(device), {"position_ids": positions.to(device)}, starts, lengths)


def target_positions(rows: list[TokenRow], layout: Layout) -> tuple[Any, Any]:
    """Which positions predict a target, and what they should predict.

    Found on the host: a boolean mask on the GPU would make it wait for its own size.

    Returns:
        ``[N]`` indices into the rectangle read line by line, and ``[N]`` token ids, in the order of the rows. The
        first token of a row is predicted by nothing, also where another row is packed before it.
    """
    import torch

    places = [
        (start + index, token)
        for row, start in zip(rows, layout.starts, strict=True)
        for index, (token, is_target) in enumerate(zip(row.ids[1:], row.targets[1:], strict=True))
        if is_target
    ]
    positions, labels = torch.tensor(places).reshape(-1, 2).T.contiguous().to(layout.ids.device)
    return positions, labels


def row_positions(layout: Layout) -> Any:
    """``[N]`` indices of all tokens of all rows, without padding."""
    import torch

    spans = zip(layout.starts, layout.lengths, strict=True)
    return torch.cat([torch.arange(start, start + length) for start, length in spans]).to(layout.ids.device)
