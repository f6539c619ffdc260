"""One training run and its folder."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import _wire as wire
from .adapter import scalings
from .cancel import Cancellation
from .channel import Channel
from .checkpoint import Syncer, remove_other_checkpoints, save_checkpoint, verify_checkpoint
from .dataset import RunData
from .errors import BridgeError
from .files import remove_partials
from .fitting import free
from .history import History, finite_or_none, metrics_row
from .loop import Loop, check_finite, check_norms
from .machine import machine_warning, this_machine
from .models import peak_memory_bytes, reset_peak_memory
from .order import checkpoint_steps, rows_per_step, steps_per_epoch, total_steps
from .precision import Precision
from .prefix_cache import PrefixCache
from .proofs import check_proofs, prove_adapter, prove_model
from .snapshot import capture, capture_rng, restore, restore_rng
from .state import SCHEMA_VERSION, StateRecord, load_state, save_state

SAVE_EVERY_SECONDS = 30.0
"""At most so much work is lost in a crash, in seconds ..."""
SAVE_COST_FRACTION = 0.05
"""... unless saving the state would then take more than this part of the time."""


class Run:
    """Steps, held-out losses and checkpoints of one run, and the state from which it goes on after any crash.

    Checkpoints and events may be ahead of the state: a resume makes those steps again, the same bit for bit, and
    tells of them again. What the state holds was told, and is told again, since a driver that died may not have read
    it. ``TrainStart.resumed_from_step`` draws the line.
    """

    def __init__(
        self,
        job: wire.TrainJob,
        run: wire.TrainRun,
        data: RunData,
        model: Any,
        identity: str,
        cache: PrefixCache,
        channel: Channel,
    ) -> None:
        self.steps = total_steps(run.training, len(data.train))
        self._job = job
        self._run = run
        self._training = run.training
        self._data = data
        self._dir = Path(run.run_dir)
        self._channel = channel
        self._identity = identity
        self._cache = cache
        self._cache_mark = cache.mark()
        self._model = model
        self._due = set(checkpoint_steps(run.training, self.steps))
        self._history = History()
        self._syncer = Syncer(self._dir)
        self._is_saved = False
        self._step = 0
        self._next_save = 0.0
        self._machine = this_machine(model.device)
        reset_peak_memory(model.device)

    def start(self, cancellation: Cancellation) -> None:
        """Restore what an earlier attempt saved, remove what it did not finish, and report both.

        Raises:
            BridgeError: ``BAD_DATA`` if what was saved does not fit; ``CANCELLED``.
        """
        remove_partials(self._dir)
        saved = load_state(self._dir / "last", self._identity)
        mode = self._job.prefix_cache.enabled if saved is None else saved[0].prefix_cache
        self._loop = Loop(
            self._model,
            self._data.train,
            self._data.kl,
            self._training,
            self.steps,
            self._cache if mode else None,
            self._channel.info,
        )
        rng = capture_rng()
        was_checkpointed = saved is not None and saved[0].was_checkpointed_on(self._machine)
        self._prepared = self._loop.prepare(cancellation, was_checkpointed=was_checkpointed)
        restore_rng(rng)
        if saved is not None:
            self._restore(*saved)
        remove_other_checkpoints(self._dir, self._history.checkpoints)
        self._announce()
        self._loop.model.train()
        self._do_what_is_due(cancellation)

    def train(self, cancellation: Cancellation) -> None:
        """Run the steps that are left.

        Raises:
            BridgeError: ``CANCELLED`` with the state saved; ``NON_FINITE_LOSS``.
        """
        while self._step < self.steps:
            rng = capture_rng()
            try:
                stats = self._loop.run_step(self._step, cancellation)
            except BridgeError:
                self._save_state(rng)  # nothing was updated yet: this is the step's start
                raise
            check_norms(stats, self._step + 1)
            peak = peak_memory_bytes(self._model.device)
            row = metrics_row(stats, self._step + 1, self._training, len(self._data.train), peak)
            self._channel.send(row)
            check_finite(stats, self._step + 1)
            self._history.metrics.append(row)
            self._step += 1
            self._is_saved = False
            self._do_what_is_due(cancellation)

    def finish(self) -> tuple[wire.RunResult, Any]:
        """Prove the last checkpoint.

        Returns:
            The result, and the base for the next run; None if its weights were trained.

        Raises:
            BridgeError: ``INTERNAL`` or ``NON_FINITE_LOSS`` if the checkpoint is not what was trained.
        """
        model, device = self._model, self._model.device
        peak = peak_memory_bytes(device)
        self._syncer.close()
        del self._loop, self._model  # the memory of the optimizer and of gradients is needed now
        model.zero_grad(set_to_none=True)
        free()
        ids = self._data.train[0].ids
        precision = Precision(self._channel.info, self._cache)
        checkpoint = self._dir / self._history.checkpoints[-1].dir
        if self._run.lora is None:
            proofs, base = prove_model(model, self._job.base_model_dir, checkpoint, ids, precision), None
        else:
            proofs, base = prove_adapter(model, checkpoint, ids, precision)
        check_proofs(proofs, was_moved=any(row.learning_rate > 0 for row in self._history.metrics))
        return wire.RunResult(
            steps=self.steps,
            **proofs.measured(),
            prefix_cache=self._cache.use_since(self._cache_mark) if self._prepared.prefix_cache else None,
            peak_memory_bytes=peak,
        ), base

    def _restore(self, record: StateRecord, tensors: dict[str, Any]) -> None:
        if self._prepared.prefix_cache != record.prefix_cache:
            raise BridgeError(
                "BAD_DATA",
                f"{self._dir}: the run began {'with' if record.prefix_cache else 'without'} a prefix cache"
                " and cannot go on in that mode here",
                "Remove the run's folder to train again from the start.",
            )
        if (warning := machine_warning(record.machine, self._machine)) is not None:
            self._channel.send(wire.Log(level="warning", message=warning))
        for checkpoint in record.checkpoints:
            verify_checkpoint(checkpoint, self._dir)
        restore(tensors, self._loop.parameters, self._loop.optimizer)
        self._step = record.step
        self._is_saved = True
        self._history = History(checkpoints=record.checkpoints, metrics=record.metrics, held_out=record.held_out)

    def _announce(self) -> None:
        self._channel.send(
            wire.TrainStart(
                max_steps=self.steps,
                resumed_from_step=self._step,
                train_rows=len(self._data.train),
                held_out_rows=len(self._data.held_out),
                trainable_parameters=sum(parameter.numel() for parameter in self._loop.parameters.values()),
                adapted_modules=sorted(scalings(self._model)),
                device=str(self._model.device),
                **asdict(self._prepared),
            )
        )
        for event in self._history.by_step():
            self._channel.send(event)

    def _do_what_is_due(self, cancellation: Cancellation) -> None:
        """Measure the held-out loss, write the checkpoint and save the state, each if it is time at this step."""
        rng = capture_rng()
        if self._is_eval_due():
            try:
                self._measure(cancellation)
            except BridgeError:
                self._save_state(rng)  # the measurement is due again after a resume
                raise
            restore_rng(rng)
        if self._step in self._due and not self._history.has_checkpoint(self._step):
            self._save_checkpoint()
        if self._step == self.steps or time.monotonic() >= self._next_save:
            self._save_state(rng)

    def _is_eval_due(self) -> bool:
        every = self._training.eval_steps
        if every == 0 or self._history.has_held_out(self._step):
            return False
        return self._step % every == 0 or self._step == self.steps

    def _measure(self, cancellation: Cancellation) -> None:
        rows = self._data.held_out
        loss, n_targets = self._loop.held_out(rows, cancellation)
        event = wire.HeldOut(step=self._step, loss=finite_or_none(loss), rows=len(rows), target_tokens=n_targets)
        self._history.held_out.append(event)
        self._is_saved = False
        self._channel.send(event)

    def _save_checkpoint(self) -> None:
        trained_base = self._job.base_model_dir if self._run.lora is None else None
        checkpoint = save_checkpoint(self._model, self._dir, self._step, trained_base)
        self._history.checkpoints.append(checkpoint)
        self._syncer.add(checkpoint)
        self._is_saved = False
        self._channel.send(checkpoint)

    def _save_state(self, rng: dict[str, Any]) -> None:
        """Write the state of the current step, after all that it names."""
        started = time.monotonic()
        if not self._is_saved:
            self._syncer.wait()
            save_state(self._dir / "last", self._record(), capture(self._loop.parameters, self._loop.optimizer, rng))
            self._is_saved = True
        now = time.monotonic()
        self._next_save = now + max(SAVE_EVERY_SECONDS, (now - started) / SAVE_COST_FRACTION)

    def _record(self) -> StateRecord:
        per_epoch = steps_per_epoch(self._training, len(self._data.train))
        return StateRecord(
            schema_version=SCHEMA_VERSION,
            fingerprint=self._identity,
            step=self._step,
            epoch=self._step // per_epoch,
            cursor=self._step % per_epoch * rows_per_step(self._training),
            file="",
            sha256="",
            prefix_cache=self._prepared.prefix_cache,
            gradient_checkpointing=self._loop.is_checkpointed,
            machine=self._machine,
            checkpoints=self._history.checkpoints,
            metrics=self._history.metrics,
            held_out=self._history.held_out,
        )
