"""One optimizer step: the loss of a whole accumulated batch, its gradient, the update."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import _wire as wire
from .cancel import Cancellation
from .choosing import choose_forward
from .fitting import (
    SWITCHED_ON,
    fit,
    free,
    is_out_of_memory,
    mode,
    random_state,
    reserve,
    set_checkpointing,
    set_random_state,
    shortage_named,
)
from .flops import Costs, Work, costs_of, peak_flops
from .forward import WholeForward
from .masking import TokenRow
from .objective import Accumulated, Objective, n_slots
from .optim import make_optimizer, make_schedule
from .prefix_cache import PrefixCache
from .split import causal_model, decoder_layers
from .step_stats import StepStats, check_finite, check_norms

__all__ = ["Loop", "Prepared", "StepStats", "check_finite", "check_norms"]


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
        self.optimizer = make_optimizer(model, training)
        self._steps = steps
        self._cache = cache
        self._info = info
        self._learning_rate = make_schedule(training, steps)
        vocabulary = causal_model(model).config.vocab_size
        self._objective = Objective(WholeForward(model), rows, kl_rows, training, vocabulary)
        self._costs: Costs | None = None
        self._switch = partial(set_checkpointing, None, 0)
        self._can_switch = False
        self.is_checkpointed = False
        self._peak = peak_flops(model.device, model.dtype)

    def prepare(self, cancellation: Cancellation, *, was_checkpointed: bool = False) -> Prepared:
        """Decide how the run is computed, by trying. Random state, gradients and weights stay as they are.

        Args:
            cancellation: Looked at before each attempt.
            was_checkpointed: Whether the run, begun earlier, already needed gradient checkpointing here.

        Raises:
            BridgeError: ``OUT_OF_MEMORY`` naming the batch sizes that would fit; ``CANCELLED``.
        """
        cancellation.check()
        training = self._objective.training
        with shortage_named("the two shortest rows do not fit into memory, even without a gradient"):
            choice = choose_forward(self.model, self._objective.rows, training, self._cache, self._info)
        training = replace(training, batching=choice.batching)
        self._objective = replace(self._objective, forward=choice.forward, training=training)
        causal = causal_model(self.model)
        layers = decoder_layers(causal)
        self._costs = None if layers is None else costs_of(causal, layers, choice.split_layer)
        self._switch = partial(set_checkpointing, layers, choice.split_layer)

        def probe(size: int) -> None:
            cancellation.check()
            self._probe(size)

        is_auto = training.gradient_checkpointing == "auto"
        if is_auto and was_checkpointed:
            training = replace(training, gradient_checkpointing="on")
        self.is_checkpointed = is_on = fit(training, self._switch, probe, self._info)
        self._can_switch = is_auto and not is_on
        return Prepared(
            split_layer=choice.split_layer,
            split_max_rel_diff=choice.max_rel_diff,
            prefix_cache=choice.has_cache,
            gradient_checkpointing=is_on,
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
        self.model.train()
        done = self._gradient_or_switch(step, cancellation)
        loss, grad_norm, *kl = _read([done.loss, self._clip(), *([] if done.kl is None else [done.kl])])
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        if all(math.isfinite(value) for value in (loss, grad_norm, *kl)):
            self.optimizer.step()
        a_norm, b_norm, weights_norm = self._norms()
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
            weights_norm=weights_norm,
            **self._counts(done),
        )

    def held_out(self, rows: list[TokenRow], cancellation: Cancellation) -> tuple[float, int]:
        """Loss in nats per target token over all rows, and the number of targets. Draws no random number.

        Raises:
            BridgeError: ``CANCELLED``.
        """
        import torch

        with torch.no_grad(), mode(self.model, is_training=False):
            loss = self._objective.held_out(rows, cancellation)
        return loss.item(), sum(row.n_targets for row in rows)

    def _gradient_or_switch(self, step: int, cancellation: Cancellation) -> Accumulated:
        """The gradient of a step; with gradient checkpointing from now on if memory turns out to be short after all.

        What is computed again is the same bit for bit, and so is a step that is begun again.
        """
        device = self.model.device
        state = random_state(device) if self._can_switch else None
        try:
            return self._gradient(step, cancellation)
        except (RuntimeError, MemoryError) as error:
            if state is None or not is_out_of_memory(error):
                raise
        self._can_switch = False
        self.optimizer.zero_grad(set_to_none=True)
        free()
        self._info(f"step {step + 1} {SWITCHED_ON}")
        self._switch(True)
        self.is_checkpointed = True
        set_random_state(device, state)
        return self._gradient(step, cancellation)

    def _gradient(self, step: int, cancellation: Cancellation) -> Accumulated:
        self._objective.forward.work = Work()
        self.optimizer.zero_grad(set_to_none=True)
        return self._objective.add_gradient(step, cancellation)

    def _probe(self, size: int) -> None:
        """Compute the longest micro-batch at some batch size, and take everything back."""
        device = self.model.device
        state = random_state(device)
        gradients = {name: p.grad for name, p in self.parameters.items()}
        self.optimizer.zero_grad(set_to_none=True)  # not added to: backward would do that in place
        held: list[Any] = []
        try:
            with mode(self.model, is_training=True):
                held += reserve(self.optimizer, self.parameters, self._objective.training, device)
                self._objective.probe(size, self._steps)
        finally:
            held.clear()  # a failure's traceback keeps this frame
            set_random_state(device, state)
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

    def _norms(self) -> tuple[float | None, float | None, float]:
        """Frobenius norms over all lora_A and all lora_B, unscaled, and over all that is trained.

        None where there is no such matrix.
        """
        import torch

        by_side = [
            [p.detach() for name, p in self.parameters.items() if f".{side}." in name] for side in ("lora_A", "lora_B")
        ]
        sides = by_side if all(by_side) else []
        everything = [p.detach() for p in self.parameters.values()]
        *norms, total = _read([torch.nn.utils.get_total_norm(part) for part in [*sides, everything]])
        a, b = norms or (None, None)
        return a, b, total


def _read(values: list[Any]) -> list[float]:
    """Scalars from the device, all in one wait for it."""
    import torch

    return torch.stack([value.double() for value in values]).tolist()
