"""Which rows are in which step: a pure function of the seed, so that resuming needs no state but the step."""

import math
from functools import lru_cache
from typing import Any

from . import _wire as wire


@lru_cache(maxsize=2)  # a step asks for its whole epoch
def epoch_order(seed: int, epoch: int, n_rows: int) -> tuple[int, ...]:
    """A permutation of the rows, a pure function of its arguments.

    Rows are sorted by 64 random bits each. These come raw from Philox4x64-10 with key ``(seed, epoch)``: NumPy keeps
    the raw stream of a bit generator stable across versions, but not ``Generator.permutation``.

    Source: NEP 19; Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

    Args:
        seed: ``training.seed``.
        epoch: Counts from 0.
        n_rows: Rows of the data set.
    """
    import numpy as np

    bits: Any = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(n_rows)
    return tuple(np.argsort(bits, kind="stable").tolist())


def steps_per_epoch(training: wire.TrainingArguments, n_rows: int) -> int:
    """Optimizer steps of one pass over the data. The last one may be smaller; no row is dropped."""
    return math.ceil(n_rows / rows_per_step(training))


def rows_per_step(training: wire.TrainingArguments) -> int:
    """Rows of a full accumulated batch."""
    return training.per_device_train_batch_size * training.gradient_accumulation_steps


def total_steps(training: wire.TrainingArguments, n_rows: int) -> int:
    """Optimizer steps of the whole run.

    Source: ``transformers.Trainer.set_initial_training_values``: ceil of epochs x steps per epoch; max_steps wins.
    """
    if training.max_steps >= 0:
        return training.max_steps
    return math.ceil(training.num_train_epochs * steps_per_epoch(training, n_rows))


def step_window(training: wire.TrainingArguments, n_rows: int, step: int) -> list[int]:
    """The rows of one optimizer step, as indices, in the order in which they were drawn.

    Args:
        training: Batch sizes and seed.
        n_rows: Rows of the data set.
        step: Counts from 0.
    """
    epoch, index = divmod(step, steps_per_epoch(training, n_rows))
    size = rows_per_step(training)
    return list(epoch_order(training.seed, epoch, n_rows)[index * size : (index + 1) * size])


def checkpoint_steps(training: wire.TrainingArguments, last: int) -> list[int]:
    """Steps that leave a checkpoint, ascending: 0, every ``save_steps``, ``save_at_steps`` and the last."""
    every = range(training.save_steps, last + 1, training.save_steps) if training.save_steps > 0 else []
    return sorted({0, last, *every, *(step for step in training.save_at_steps if step <= last)})
