"""One optimizer step: the loss of a whole accumulated batch, its gradient, the update."""

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import _wire as wire
from .batching import micro_batches
from .cancel import Cancellation
from .errors import BridgeError
from .masking import TokenRow
from .optim import make_optimizer, make_schedule
from .order import step_window
from .prefix_cache import PrefixCache

IGNORE_INDEX = -100
"""Label that torch's cross entropy skips. Source: torch.nn.CrossEntropyLoss, ``ignore_index`` default."""


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

    @property
    def is_finite(self) -> bool:
        """Whether the update was made."""
        return all(math.isfinite(value) for value in (self.loss, self.kl or 0.0, self.grad_norm))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """How the run is computed, as in ``wire.TrainStart``."""

    split_layer: int
    split_max_rel_diff: float | None
    prefix_cache: bool
    gradient_checkpointing: bool


class Loop:
    """A model with its trained parameters and their optimizer. Knows nothing of files and events."""

    def __init__(
        self,
        model: Any,
        rows: list[TokenRow],
        kl_rows: list[TokenRow],
        training: wire.TrainingArguments,
        steps: int,
        cache: PrefixCache | None,
        info: Callable[[str], None],
    ) -> None:
        self.model = model
        self.parameters: dict[str, Any] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(self.parameters, training, model.device)
        self._rows = rows
        self._kl_rows = kl_rows
        self._training = training
        self._cache = cache
        self._info = info
        self._learning_rate = make_schedule(training, steps)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._selects_logits = "logits_to_keep" in inspect.signature(base.forward).parameters

    def prepare(self, cancellation: Cancellation) -> Prepared:
        """Decide how the run is computed. Random state, gradients and weights stay as they are."""
        cancellation.check()
        return Prepared(split_layer=0, split_max_rel_diff=None, prefix_cache=False, gradient_checkpointing=False)

    def held_out(self, rows: list[TokenRow], cancellation: Cancellation) -> tuple[float, int]:
        """Loss in nats per target token over all rows, and the number of targets. Draws no random number."""
        import torch

        was_training = self.model.training
        self.model.eval()
        total, n_targets = 0.0, 0
        with torch.no_grad():
            for row in rows:
                cancellation.check()
                total += self._loss_sum([row]).item()
                n_targets += row.n_targets
        self.model.train(was_training)
        return total / n_targets, n_targets

    def run_step(self, step: int, cancellation: Cancellation) -> StepStats:
        """Make one update, unless the loss or its gradient is not finite.

        The loss is the sum over all target tokens of all micro-batches over their number, so that 16 x 1 and 2 x 8
        are the same up to rounding.

        Args:
            step: Counts from 0.
            cancellation: Looked at between micro-batches; the parameters are those of the step's start then.

        Raises:
            BridgeError: ``CANCELLED``.
        """
        import torch

        started = time.perf_counter()
        window = step_window(self._training, len(self._rows), step)
        rows = [self._rows[index] for index in window]
        n_targets = sum(row.n_targets for row in rows)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), dtype=torch.float64, device=self.model.device)
        for batch in micro_batches(self._rows, window, self._training):
            cancellation.check()
            part = self._loss_sum([self._rows[index] for index in batch]) / n_targets
            part.backward()
            loss += part.detach()
        grad_norm = self._clip()
        finite = bool(torch.isfinite(loss)) and bool(torch.isfinite(grad_norm))
        if finite:
            self.optimizer.step()
        a_norm, b_norm = self._norms()
        return StepStats(
            loss=loss.item(),
            kl=None,
            grad_norm=grad_norm.item(),
            learning_rate=self._learning_rate(step),
            tokens=sum(len(row.ids) for row in rows),
            target_tokens=n_targets,
            padding_tokens=0,
            seconds=time.perf_counter() - started,
            mfu=None,
            a_norm=a_norm,
            b_norm=b_norm,
        )

    def _loss_sum(self, rows: list[TokenRow]) -> Any:
        """Sum of the cross entropies of all targets of one micro-batch, in nats, in float32.

        ``lm_head``, the largest matrix of a small model, runs only where some row of the micro-batch has a target.
        """
        import torch
        from torch.nn.functional import cross_entropy

        ids, mask, labels = (part.to(self.model.device) for part in pad(rows))
        kept = (labels != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1)
        arguments = {"logits_to_keep": kept} if self._selects_logits else {}
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **arguments).logits
        if not self._selects_logits:
            logits = logits[:, kept]
        wanted = labels[:, kept]
        chosen = wanted != IGNORE_INDEX
        return cross_entropy(logits[chosen].to(torch.float32), wanted[chosen], reduction="sum")

    def _clip(self) -> Any:
        import torch

        limit = self._training.max_grad_norm or math.inf
        return torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit)

    def _norms(self) -> tuple[float | None, float | None]:
        """Frobenius norms over all lora_A and all lora_B, unscaled; None where there is no such matrix."""
        import torch

        by_side = [
            [p.detach() for name, p in self.parameters.items() if f".{side}." in name] for side in ("lora_A", "lora_B")
        ]
        if not all(by_side):
            return None, None
        a, b = torch.stack([torch.nn.utils.get_total_norm(side) for side in by_side]).tolist()
        return a, b


def pad(rows: list[TokenRow]) -> tuple[Any, Any, Any]:
    """Rows as rectangles, padded on the right.

    Returns:
        ``[B, T]`` ids, attention mask and labels. Label t is the token that position t predicts, that is token t+1,
        or ``IGNORE_INDEX``.
    """
    import torch

    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE_INDEX, dtype=torch.long)
    for index, row in enumerate(rows):
        tokens = torch.tensor(row.ids)
        targets = torch.tensor(row.targets)
        ids[index, : len(tokens)] = tokens
        mask[index, : len(tokens)] = 1
        labels[index, : len(tokens) - 1] = torch.where(targets[1:], tokens[1:], IGNORE_INDEX)
    return ids, mask, labels


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
    raise BridgeError(
        "NON_FINITE_LOSS",
        f"{what} at step {step}: expected a finite number",
        "Lower learning_rate, or lora_alpha, or raise warmup_steps.",
    )


def check_norms(stats: StepStats, step: int) -> None:
    """Refuse to report a step whose update blew the adapter up.

    Args:
        stats: Of that step.
        step: Counts from 1.

    Raises:
        BridgeError: ``NON_FINITE_LOSS``.
    """
    if all(norm is None or math.isfinite(norm) for norm in (stats.a_norm, stats.b_norm)):
        return
    raise BridgeError(
        "NON_FINITE_LOSS",
        f"the adapter's weights are not finite after step {step}: the run diverged",
        "Lower learning_rate, or lora_alpha, or raise warmup_steps.",
    )
