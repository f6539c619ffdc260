"""Numbers of one step, and when they end a run. Standard library only."""

import math
from dataclasses import dataclass

from .errors import BridgeError


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """Numbers of one step, as in ``wire.TrainStep``, but for losses that may be not finite."""

    loss: float
    kl: float | None
    grad_norm: float
    learning_rate: float
    tokens: int
    target_tokens: int
    padding_tokens: int
    seconds: float
    mfu: float | None
    a_norm: float | None
    b_norm: float | None
    weights_norm: float
    """over all that is trained; not told to the driver, but a run whose weights are not finite ends"""

    @property
    def is_finite(self) -> bool:
        """Whether the update was made."""
        return all(math.isfinite(value) for value in (self.loss, self.kl or 0.0, self.grad_norm))


def check_finite(stats: StepStats, step: int) -> None:
    """Refuse to go on from a step without an update.

    Args:
        stats: Of that step.
        step: Counts from 1.

    Raises:
        BridgeError: ``NON_FINITE_LOSS``.
    """
    if stats.is_finite:
        return
    what = f"the loss is {stats.loss}" if not math.isfinite(stats.loss) else f"the gradient norm is {stats.grad_norm}"
    raise _diverged(f"{what} at step {step}: expected a finite number")


def check_norms(stats: StepStats, step: int) -> None:
    """Refuse to report a step whose update blew the trained weights up.

    Args:
        stats: Of that step.
        step: Counts from 1.

    Raises:
        BridgeError: ``NON_FINITE_LOSS``.
    """
    if math.isfinite(stats.weights_norm):
        return
    raise _diverged(f"the trained weights are not finite after step {step}: the run diverged")


def _diverged(message: str) -> BridgeError:
    return BridgeError("NON_FINITE_LOSS", message, "Lower learning_rate, or lora_alpha, or raise warmup_steps.")
