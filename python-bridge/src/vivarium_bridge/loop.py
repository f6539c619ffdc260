"""One optimizer step: the loss of a whole accumulated batch, its gradient, the update."""

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import _wire as wire
from .cancel import Cancellation
from .errors import BridgeError
from .masking import TokenRow

IGNORE_INDEX = -100
"""Label that torch's cross entropy skips. Source: torch.nn.CrossEntropyLoss, ``ignore_index`` default."""
ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
"""Source: transformers.TrainingArguments ``adam_beta1``, ``adam_beta2``, ``adam_epsilon`` defaults."""


@dataclass(frozen=True, slots=True)
class StepStats:
    """Numbers of one step. ``loss`` is in nats per target token, norms are unitless, ``grad_norm`` before clipping."""

    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    target_tokens: int
    seconds: float
    a_norm: float
    b_norm: float

    @property
    def is_finite(self) -> bool:
        """Whether the update was made."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Loop:
    """An adapted model with its optimizer. Knows nothing of files and events."""

    def __init__(self, model: Any, rows: list[TokenRow], training: wire.TrainingArguments, steps: int) -> None:
        self.model = model
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(list(self.parameters.values()), training)
        self._rows = rows
        self._training = training
        self._learning_rate = make_schedule(self.optimizer, training, steps)
        self._selects_logits = "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters

    def run_step(self, step: int, batches: list[list[int]], cancellation: Cancellation) -> StepStats:
        """Make one update, unless the loss or its gradient is not finite.

        The loss is the sum over all target tokens of all micro-batches over their number, so that 16 x 1 and 2 x 8
        are the same up to rounding.

        Args:
            step: Counts from 0.
            batches: Row indices of each micro-batch.
            cancellation: Looked at between micro-batches; the parameters are those of the step's start then.

        Raises:
            BridgeError: ``CANCELLED``.
        """
        import torch

        started = time.perf_counter()
        rows = [self._rows[index] for batch in batches for index in batch]
        n_targets = sum(row.n_targets for row in rows)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), dtype=torch.float64, device=self.model.device)
        for batch in batches:
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
            grad_norm=grad_norm.item(),
            learning_rate=self._learning_rate(step),
            tokens=sum(len(row.ids) for row in rows),
            target_tokens=n_targets,
            seconds=time.perf_counter() - started,
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

    def _norms(self) -> tuple[float, float]:
        """Frobenius norms over all lora_A and all lora_B, unscaled."""
        import torch

        by_side = [
            [p.detach() for name, p in self.parameters.items() if f".{side}." in name] for side in ("lora_A", "lora_B")
        ]
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


def make_optimizer(parameters: list[Any], training: wire.TrainingArguments) -> Any:
    """AdamW or plain SGD, as ``transformers.Trainer`` makes them; every LoRA matrix is decayed."""
    import torch

    rate, decay = training.learning_rate, training.weight_decay
    if training.optim == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=decay)


def make_schedule(optimizer: Any, training: wire.TrainingArguments, steps: int) -> Callable[[int], float]:
    """Learning rate of a step, counted from 0: a pure function, so that it has no state to resume.

    The factor is that of ``transformers.get_scheduler``; its scheduler object is never stepped.
    """
    from transformers.optimization import get_scheduler

    scheduler: Any = get_scheduler(
        training.lr_scheduler_type,
        optimizer,
        num_warmup_steps=training.warmup_steps,
        num_training_steps=steps,
    )
    (factor,) = scheduler.lr_lambdas
    return lambda step: training.learning_rate * factor(step)


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
    if math.isfinite(stats.a_norm) and math.isfinite(stats.b_norm):
        return
    raise BridgeError(
        "NON_FINITE_LOSS",
        f"the adapter's weights are not finite after step {step}: the run diverged",
        "Lower learning_rate, or lora_alpha, or raise warmup_steps.",
    )
