"""What is minimised: its gradient over an accumulated batch, its value on held-out rows, the memory it needs."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from . import _wire as wire
from .batching import cyclic_window, micro_batches
from .cancel import Cancellation
from .forward import Forward
from .masking import TokenRow
from .order import step_window

LossOf = Callable[[list[TokenRow], bool], Any]


@dataclass(frozen=True, slots=True)
class Accumulated:
    """One step's losses, still on the device, and what they were computed from.

    Attributes:
        loss: ``[]``, nats per target token.
        kl: ``[]``, nats per token, without its weight; None where there is no such term.
        batches: Row indices of each micro-batch.
    """

    loss: Any
    kl: Any
    batches: list[list[int]]


@dataclass(frozen=True, slots=True)
class Objective:
    """Cross entropy on targets, and KL from the base on other rows."""

    forward: Forward
    rows: list[TokenRow]
    kl_rows: list[TokenRow]
    training: wire.TrainingArguments
    vocabulary: int

    def add_gradient(self, step: int, cancellation: Cancellation) -> Accumulated:
        """Add the gradient of one step's objective to the parameters' own.

        The loss is the sum over all target tokens of all micro-batches over their number, so that 16 x 1 and 2 x 8
        are the same up to rounding.

        Raises:
            BridgeError: ``CANCELLED``, looked for between micro-batches.
        """
        batches = micro_batches(self.rows, step_window(self.training, len(self.rows), step), self.training)
        n_targets = sum(self.rows[index].n_targets for batch in batches for index in batch)
        loss = self._accumulate(self.forward.target_loss, self.rows, batches, 1 / n_targets, cancellation)
        kl = self._add_kl(step, cancellation) if self.has_kl else None
        return Accumulated(loss, kl, batches)

    @property
    def has_kl(self) -> bool:
        """Whether the model is held to its base."""
        return self.training.kl_weight > 0 and bool(self.kl_rows)

    def held_out(self, rows: list[TokenRow], cancellation: Cancellation) -> Any:
        """Loss ``[]`` in nats per target token over all rows. To be called without gradient and in evaluation mode.

        Raises:
            BridgeError: ``CANCELLED``, looked for between micro-batches.
        """
        batching = "packed" if self._is_packed else "by_length"  # no order to be kept here
        batches = micro_batches(rows, list(range(len(rows))), replace(self.training, batching=batching))
        total: Any = 0.0
        for batch in batches:
            cancellation.check()
            total += self.forward.target_loss([rows[index] for index in batch], self._is_packed).double()
        return total / sum(row.n_targets for row in rows)

    def probe(self, size: int, steps: int) -> None:
        """Add the gradient of the micro-batch with the most slots of a run, and of that of the KL term.

        Args:
            size: ``per_device_train_batch_size`` instead of the run's own; must divide the rows of a step.
            steps: Of the run.
        """
        rows_per_step = self.training.per_device_train_batch_size * self.training.gradient_accumulation_steps
        training = replace(
            self.training, per_device_train_batch_size=size, gradient_accumulation_steps=rows_per_step // size
        )
        windows = (step_window(training, len(self.rows), step) for step in range(steps))
        self._probe_longest(self.forward.target_loss, self.rows, windows, training)
        if self.has_kl:
            n_windows = math.ceil(len(self.kl_rows) / training.kl_batch_size)
            windows = (cyclic_window(len(self.kl_rows), training.kl_batch_size, step) for step in range(n_windows))
            self._probe_longest(self.forward.kl_divergence, self.kl_rows, windows, training)

    @property
    def _is_packed(self) -> bool:
        return self.training.batching == "packed"

    def _accumulate(
        self,
        loss_of: LossOf,
        rows: list[TokenRow],
        batches: list[list[int]],
        factor: float,
        cancellation: Cancellation,
    ) -> Any:
        """Add the gradient of ``factor`` times the loss of all micro-batches; returns that product, ``[]``."""
        total: Any = 0.0
        for batch in batches:
            cancellation.check()
            part = loss_of([rows[index] for index in batch], self._is_packed) * factor
            part.backward()
            total += part.detach().double()
        return total

    def _add_kl(self, step: int, cancellation: Cancellation) -> Any:
        """Add the gradient of the KL term; returns KL in nats per token, ``[]``.

        Rows come in batches in the order of their file, again and again, the last batch being smaller. Every token
        counts, prompts included, and the term is the mean over tokens and vocabulary entries.

        Source: zroe1/replicating-model-organisms ``em_organism_dir/finetune/sft/util/trainer.py``
        ``_compute_kl_loss``. There each micro-batch gets the term of a batch of its own; here each step does.
        """
        window = cyclic_window(len(self.kl_rows), self.training.kl_batch_size, step)
        per_token = 1 / sum(len(self.kl_rows[index].ids) for index in window)
        weight = self.training.kl_weight / self.vocabulary
        batches = micro_batches(self.kl_rows, window, self.training)
        loss_of = self.forward.kl_divergence
        return self._accumulate(loss_of, self.kl_rows, batches, weight * per_token, cancellation) / weight

    def _probe_longest(
        self, loss_of: LossOf, rows: list[TokenRow], windows: Iterable[list[int]], training: wire.TrainingArguments
    ) -> None:
        batches = (batch for window in windows for batch in micro_batches(rows, window, training))
        longest = max(batches, key=lambda batch: n_slots(rows, batch, self._is_packed), default=None)
        if longest is not None:
            (loss_of([rows[index] for index in longest], self._is_packed) / n_slots(rows, longest, True)).backward()


def n_slots(rows: list[TokenRow], batch: list[int], is_packed: bool) -> int:
    """Positions that a micro-batch makes the model compute: padding included, unless its rows are packed."""
    lengths = [len(rows[index].ids) for index in batch]
    return sum(lengths) if is_packed else len(lengths) * max(lengths)
