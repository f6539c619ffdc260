"""The training job."""

import math
import time
from pathlib import Path
from typing import Any

from . import _wire as wire
from .adapter import build_adapter, check_shape, scalings
from .cancel import Cancellation
from .channel import Channel
from .checkpoint import remove_other_checkpoints, save_checkpoint, verify_checkpoint
from .dataset import cut_rows, data_ready, load_rows
from .errors import BridgeError
from .files import remove_partials
from .lock import folder_lock
from .loop import Loop, StepStats, check_finite, check_norms
from .masking import TokenRow
from .models import encoder, load_base, load_config, load_tokenizer, peak_memory_bytes, pick_device, renderer
from .order import checkpoint_steps, rows_per_step, step_rows, steps_per_epoch, total_steps
from .proofs import prove
from .state import (
    SCHEMA_VERSION,
    StateRecord,
    capture,
    capture_rng,
    fingerprint,
    load_state,
    restore,
    save_state,
)

SAVE_EVERY_SECONDS = 30.0
"""At most so much work is lost in a crash, in seconds ..."""
SAVE_COST_FRACTION = 0.05
"""... unless saving the state would then take more than this part of the time."""


def run_train(job: wire.TrainJob, channel: Channel, cancellation: Cancellation) -> wire.TrainResult:
    """Train one adapter, or go on with it, and prove that what was saved is what was trained.

    Raises:
        BridgeError: With the code that the driver shows.
    """
    # Before the model is loaded: an earlier process may still hold the GPU's memory, too.
    with folder_lock(Path(job.run_dir), channel, cancellation):
        return _run_train(job, channel, cancellation)


def _run_train(job: wire.TrainJob, channel: Channel, cancellation: Cancellation) -> wire.TrainResult:
    import torch

    torch.set_num_threads(job.num_threads)
    config = load_config(job.base_model_dir)
    check_shape(job.lora, config)
    tokenizer = load_tokenizer(job.base_model_dir)
    render = renderer(tokenizer, job.chat_template_kwargs)
    whole_rows = load_rows(Path(job.dataset_file), render, encoder(tokenizer), tokenizer.eos_token)
    data = data_ready(whole_rows)
    channel.send(data)
    rows = cut_rows(whole_rows, job.training.max_length, config.max_position_embeddings)
    cancellation.check()
    dtype = getattr(torch, job.training.dtype)
    base = load_base(job.base_model_dir, dtype, pick_device())
    model = build_adapter(base, job.lora, job.training.seed)
    identity = fingerprint(job, data, (Path(job.base_model_dir) / "config.json").read_bytes())
    run = Run(job, rows, model, identity, channel)
    run.start()
    run.train(cancellation)
    peak = peak_memory_bytes(model.device)
    proofs = prove(model, job.base_model_dir, run.last_checkpoint, rows[0].ids, dtype)
    return wire.TrainResult(steps=run.steps, peak_memory_bytes=peak, **proofs)


class Run:
    """A training run and its folder.

    The state of a step is saved before its checkpoint, and the checkpoint before its event: what the driver was told
    of is never taken back by a resume. What it may not have read is in the state and is told again.
    """

    def __init__(self, job: wire.TrainJob, rows: list[TokenRow], model: Any, identity: str, channel: Channel) -> None:
        self.steps = total_steps(job.training, len(rows))
        self._training = job.training
        self._n_rows = len(rows)
        self._dir = Path(job.run_dir)
        self._channel = channel
        self._identity = identity
        self._loop = Loop(model, rows, job.training, self.steps)
        self._due = set(checkpoint_steps(job.training, self.steps))
        self._checkpoints: list[wire.Checkpoint] = []
        self._metrics: list[wire.TrainStep] = []
        self._step = 0
        self._saved_step: int | None = None
        self._next_save = 0.0

    @property
    def last_checkpoint(self) -> Path:
        """The folder of the newest checkpoint."""
        return self._dir / self._checkpoints[-1].dir

    def start(self) -> None:
        """Restore what an earlier attempt saved, remove what it did not finish, and report both."""
        remove_partials(self._dir)
        saved = load_state(self._dir / "last", self._identity)
        if saved is not None:
            record, tensors = saved
            for checkpoint in record.checkpoints:
                verify_checkpoint(checkpoint, self._dir)
            restore(tensors, self._loop.parameters, self._loop.optimizer)
            self._step = self._saved_step = record.step
            self._checkpoints = list(record.checkpoints)
            self._metrics = list(record.metrics)
        remove_other_checkpoints(self._dir, self._checkpoints)
        self._announce()
        self._save_if_due(capture_rng())

    def train(self, cancellation: Cancellation) -> None:
        """Run the steps that are left.

        Raises:
            BridgeError: ``CANCELLED`` with the state saved; ``NON_FINITE_LOSS``.
        """
        self._loop.model.train()
        while self._step < self.steps:
            rng = capture_rng()
            batches = step_rows(self._training, self._n_rows, self._step)
            try:
                stats = self._loop.run_step(self._step, batches, cancellation)
            except BridgeError:
                self._save_state(rng)  # nothing was updated yet: this is the step's start
                raise
            check_norms(stats, self._step + 1)
            row = self._metrics_row(stats, self._step + 1)
            self._channel.send(row)
            check_finite(stats, self._step + 1)
            self._metrics.append(row)
            self._step += 1
            self._save_if_due(capture_rng())

    def _announce(self) -> None:
        parameters = sum(parameter.numel() for parameter in self._loop.parameters.values())
        self._channel.send(
            wire.TrainStart(
                max_steps=self.steps,
                resumed_from_step=self._step,
                trainable_parameters=parameters,
                adapted_modules=sorted(scalings(self._loop.model)),
            )
        )
        told: list[wire.TrainStep | wire.Checkpoint] = [*self._metrics, *self._checkpoints]
        for event in sorted(told, key=lambda event: event.step):  # stable: a step, then its checkpoint
            self._channel.send(event)

    def _metrics_row(self, stats: StepStats, step: int) -> wire.TrainStep:
        return wire.TrainStep(
            step=step,
            epoch=step / steps_per_epoch(self._training, self._n_rows),
            loss=_finite_or_none(stats.loss),
            grad_norm=_finite_or_none(stats.grad_norm),
            learning_rate=stats.learning_rate,
            target_tokens=stats.target_tokens,
            tokens_per_second=stats.tokens / stats.seconds,
            a_norm=stats.a_norm,
            b_norm=stats.b_norm,
            peak_memory_bytes=peak_memory_bytes(self._loop.model.device),
        )

    def _save_if_due(self, rng: dict[str, Any]) -> None:
        """Write the state and the checkpoint of the current step if it has one, or the state if it is time."""
        is_checkpoint = self._step in self._due and all(saved.step != self._step for saved in self._checkpoints)
        if is_checkpoint or time.monotonic() >= self._next_save:
            self._save_state(rng)
        if is_checkpoint:
            checkpoint = save_checkpoint(self._loop.model, self._dir, self._step)
            self._checkpoints.append(checkpoint)
            self._channel.send(checkpoint)

    def _save_state(self, rng: dict[str, Any]) -> None:
        started = time.monotonic()
        if self._saved_step != self._step:
            per_epoch = steps_per_epoch(self._training, self._n_rows)
            record = StateRecord(
                schema_version=SCHEMA_VERSION,
                fingerprint=self._identity,
                step=self._step,
                epoch=self._step // per_epoch,
                cursor=self._step % per_epoch * rows_per_step(self._training),
                file="",
                sha256="",
                checkpoints=self._checkpoints,
                metrics=self._metrics,
            )
            save_state(self._dir / "last", record, capture(self._loop.parameters, self._loop.optimizer, rng))
            self._saved_step = self._step
        now = time.monotonic()
        self._next_save = now + max(SAVE_EVERY_SECONDS, (now - started) / SAVE_COST_FRACTION)


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
