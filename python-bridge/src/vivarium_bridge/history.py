"""What a run has told the driver so far."""

import math
from dataclasses import dataclass, field

from . import _wire as wire
from .loop import StepStats
from .order import steps_per_epoch

Told = wire.TrainStep | wire.HeldOut | wire.Checkpoint


@dataclass(slots=True, kw_only=True)
class History:
    """Events of a run in the order in which they happened."""

    checkpoints: list[wire.Checkpoint] = field(default_factory=list)
    metrics: list[wire.TrainStep] = field(default_factory=list)
    held_out: list[wire.HeldOut] = field(default_factory=list)

    def has_checkpoint(self, step: int) -> bool:
        """Whether the step has left its checkpoint."""
        return bool(self.checkpoints) and self.checkpoints[-1].step == step

    def has_held_out(self, step: int) -> bool:
        """Whether the held-out loss of a step is known."""
        return bool(self.held_out) and self.held_out[-1].step == step

    def by_step(self) -> list[Told]:
        """All events: of each step its metrics, its held-out loss, its checkpoint."""
        told: list[Told] = [*self.metrics, *self.held_out, *self.checkpoints]
        return sorted(told, key=lambda event: event.step)  # stable


def metrics_row(
    stats: StepStats, step: int, training: wire.TrainingArguments, n_rows: int, peak_memory_bytes: int
) -> wire.TrainStep:
    """A step as the driver is told of it.

    Args:
        stats: Of the step.
        step: Counts from 1.
        training: Batch sizes.
        n_rows: Rows that are trained on.
        peak_memory_bytes: So far.
    """
    return wire.TrainStep(
        step=step,
        epoch=step / steps_per_epoch(training, n_rows),
        loss=finite_or_none(stats.loss),
        kl=None if stats.kl is None else finite_or_none(stats.kl),
        grad_norm=finite_or_none(stats.grad_norm),
        learning_rate=stats.learning_rate,
        tokens=stats.tokens,
        target_tokens=stats.target_tokens,
        padding_tokens=stats.padding_tokens,
        seconds=stats.seconds,
        tokens_per_second=stats.tokens / stats.seconds,
        mfu=stats.mfu,
        a_norm=stats.a_norm,
        b_norm=stats.b_norm,
        peak_memory_bytes=peak_memory_bytes,
    )


def finite_or_none(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None
