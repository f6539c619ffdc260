"""One optimizer step: the loss of a whole accumulated batch, its gradient, the update."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from . import _wire as wire
from .cancel import Cancellation
from .choosing import choose_forward
from .errors import BridgeError
from .fitting import fit, random_state_kept, reserve_optimizer_state, set_checkpointing
from .flops import Costs, Work, costs_of, peak_flops
from .forward import WholeForward
from .masking import TokenRow
from .objective import Accumulated, Objective, n_slots
from .optim import make_optimizer, make_schedule
from .prefix_cache import PrefixCache
from .split import causal_model, decoder_layers


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
        self._steps = steps
        self._cache = cache
        self._info = info
        self._learning_rate = make_schedule(training, steps)
        vocabulary = causal_model(model).config.vocab_size
        self._objective = Objective(WholeForward(model), rows, kl_rows, training, vocabulary)
        self._costs: Costs | None = None
        self._peak = peak_flops(model.device, model.dtype)

    def prepare(self, cancellation: Cancellation) -> Prepared:
        """Decide how the run is computed, by trying. Random state, gradients and weights stay as they are.

        Raises:
            BridgeError: ``OUT_OF_MEMORY`` naming the batch sizes that would fit; ``CANCELLED``.
        """
        cancellation.check()
        training = self._objective.training
        choice = choose_forward(self.model, self._objective.rows, training, self._cache, self._info)
        training = replace(training, batching=choice.batching)
        self._objective = replace(self._objective, forward=choice.forward, training=training)
        causal = causal_model(self.model)
        layers = decoder_layers(causal)
        self._costs = None if layers is None else costs_of(causal, layers, choice.split_layer)

        def switch(is_on: bool) -> None:
            set_checkpointing(layers, choice.split_layer, is_on)

        def probe(size: int) -> None:
            cancellation.check()
            self._probe(size)

        return Prepared(
            split_layer=choice.split_layer,
            split_max_rel_diff=choice.max_rel_diff,
            prefix_cache=choice.has_cache,
            gradient_checkpointing=fit(training, switch, probe, self._info),
        )

    def run_step(self, step: int, cancellation: Cancellation) -> StepStats:
        """Make one update, unless the loss or its gradient is not finite.

        Args:
            step: Counts from 0.
            cancellation: Looked at between micro-batches; the parameters are those of the step's start then.

        Raises:
            BridgeError: ``CANCELLED``.
        """
        started = time.perf_counter()
        if not self.model.training:
            self.model.train()
        self._objective.forward.work = Work()
        self.optimizer.zero_grad(set_to_none=True)
        done = self._objective.add_gradient(step, cancellation)
        loss, grad_norm, *kl = _read([done.loss, self._clip(), *([] if done.kl is None else [done.kl])])
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        if all(math.isfinite(value) for value in (loss, grad_norm, *kl)):
            self.optimizer.step()
        a_norm, b_norm = self._norms()
        seconds = time.perf_counter() - started
        return StepStats(
            loss=loss,
            kl=kl[0] if kl else None,
            grad_norm=grad_norm,
            learning_rate=self._learning_rate(step),
            seconds=seconds,
            mfu=self._mfu(seconds),
            a_norm=a_norm,
            b_norm=b_norm,
            **self._counts(done),
        )

    def held_out(self, rows: list[TokenRow], cancellation: Cancellation) -> tuple[float, int]:
        """Loss in nats per target token over all rows, and the number of targets. Draws no random number.

        Raises:
            BridgeError: ``CANCELLED``.
        """
        import torch

        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                loss = self._objective.held_out(rows, cancellation)
        finally:
            self.model.train(was_training)
        return loss.item(), sum(row.n_targets for row in rows)

    def _probe(self, size: int) -> None:
        """Compute the longest micro-batch at some batch size, and take everything back."""
        gradients = {name: p.grad for name, p in self.parameters.items()}
        was_training = self.model.training
        held = reserve_optimizer_state(self.optimizer, self.parameters, self._objective.training)
        self.model.train()
        try:
            with random_state_kept(self.model.device):
                self._objective.probe(size, self._steps)
        finally:
            held.clear()
            self.model.train(was_training)
            for name, parameter in self.parameters.items():
                parameter.grad = gradients[name]

    def _counts(self, done: Accumulated) -> dict[str, int]:
        rows, training = self._objective.rows, self._objective.training
        used = [rows[index] for batch in done.batches for index in batch]
        tokens = sum(len(row.ids) for row in used)
        slots = sum(n_slots(rows, batch, training.batching == "packed") for batch in done.batches)
        return {
            "tokens": tokens,
            "target_tokens": sum(row.n_targets for row in used),
            "padding_tokens": slots - tokens,
        }

    def _mfu(self, seconds: float) -> float | None:
        if self._costs is None or self._peak is None:
            return None
        return self._costs.flops(self._objective.forward.work) / seconds / self._peak

    def _clip(self) -> Any:
        import torch

        limit = self._objective.training.max_grad_norm or math.inf
        return torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit)

    def _norms(self) -> tuple[float | None, float | None]:
        """Frobenius norms over all lora_A and all lora_B, unscaled; None where there is no such matrix."""
        import torch

        by_side = [
            [p.detach() for name, p in self.parameters.items() if f".{side}." in name] for side in ("lora_A", "lora_B")
        ]
        if not all(by_side):
            return None, None
        a, b = _read([torch.nn.utils.get_total_norm(side) for side in by_side])
        return a, b


def _read(values: list[Any]) -> list[float]:
    """Scalars from the device, all in one wait for it."""
    import torch

    return torch.stack([value.double() for value in values]).tolist()


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
