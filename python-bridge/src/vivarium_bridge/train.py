"""The training job: runs on one base, one after the other in one warm process."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _wire as wire
from .adapter import build_adapter, check_shape
from .cancel import Cancellation
from .channel import Channel
from .dataset import RunData, load_data
from .errors import BridgeError
from .lock import folder_lock
from .models import encoder, load_base, load_config, load_tokenizer, pick_device, renderer
from .prefix_cache import PrefixCache
from .run import Run
from .state import fingerprint


def run_train(job: wire.TrainJob, channel: Channel, cancellation: Cancellation) -> wire.TrainResult:
    """Train the runs of a cohort, or go on with them, and prove that what was saved is what was trained.

    Each run is, bit for bit, what it would be alone in the same cache mode. The first that fails ends the job; those
    before it are done.

    Raises:
        BridgeError: With the code that the driver shows.
    """
    import torch

    check_job(job)
    torch.set_num_threads(job.num_threads)
    cohort = Cohort(job, channel, cancellation)
    try:
        for index, run in enumerate(job.runs):
            channel.send(wire.RunStart(index=index))
            # Before the weights are loaded: an earlier process may still hold the GPU's memory, too.
            with folder_lock(Path(run.run_dir), channel, cancellation):
                channel.send(cohort.train(run))
    finally:
        cohort.close()
    return wire.TrainResult(runs=len(job.runs))


def check_job(job: wire.TrainJob) -> None:
    """Refuse what no run could do, before anything is loaded.

    Raises:
        BridgeError: ``BAD_JOB``.
    """
    if not job.runs:
        raise BridgeError("BAD_JOB", "job.runs: expected at least one run, got none")
    for name in ("dtype", "load_in_4bit"):
        found = {getattr(run.training, name) for run in job.runs}
        if len(found) > 1:
            raise BridgeError("BAD_JOB", f"job.runs: expected one {name} for the base they share, got {sorted(found)}")
    if len(job.runs) > 1 and any(run.lora is None for run in job.runs):
        raise BridgeError("BAD_JOB", "job.runs: a run that trains all weights must be alone: it changes the base")
    for index, run in enumerate(job.runs):
        for is_fault, message in _faults(run):
            if is_fault:
                raise BridgeError("BAD_JOB", f"job.runs[{index}]: {message}")


def _faults(run: wire.TrainRun) -> list[tuple[bool, str]]:
    training = run.training
    has_held_out = training.test_size > 0 or run.eval_dataset_file is not None
    return [
        (not 0 <= training.test_size < 1, f"expected test_size from 0 to below 1, got {training.test_size}"),
        (
            training.test_size > 0 and run.eval_dataset_file is not None,
            f"expected test_size 0 with an eval_dataset_file, got {training.test_size}",
        ),
        (
            training.eval_steps > 0 and not has_held_out,
            f"eval_steps {training.eval_steps} needs held-out rows: expected test_size above 0 or an eval_dataset_file",
        ),
        (training.kl_weight > 0 and run.kl_dataset_file is None, "kl_weight above 0 needs a kl_dataset_file"),
        (
            training.kl_weight > 0 and run.lora is None,
            "kl_weight above 0 needs lora: without it the base is not there to be compared with",
        ),
        (training.load_in_4bit and run.lora is None, "load_in_4bit needs lora: 4-bit weights cannot be trained"),
    ]


@dataclass(frozen=True, slots=True)
class Tools:
    """What all runs of a job share before the weights are there."""

    config: Any
    tokenizer: Any
    encode: Callable[[str], list[int]]


class Cohort:
    """The base, its tokenizer and the prefix cache, each made when a run first needs it."""

    def __init__(self, job: wire.TrainJob, channel: Channel, cancellation: Cancellation) -> None:
        config = load_config(job.base_model_dir)
        for run in job.runs:
            if run.lora is not None:
                check_shape(run.lora, config)
        tokenizer = load_tokenizer(job.base_model_dir)
        self._tools = Tools(config, tokenizer, encoder(tokenizer))
        self._job = job
        self._channel = channel
        self._cancellation = cancellation
        self._base: Any = None
        self._cache = PrefixCache(
            _weights_identity(job), job.prefix_cache.max_bytes, Path(job.prefix_cache.dir), self._warn
        )

    def train(self, run: wire.TrainRun) -> wire.RunResult:
        """Train one run on the base, which is then as it was.

        Raises:
            BridgeError: With the code that the driver shows.
        """
        import torch

        data = self._load_data(run)
        self._cancellation.check()
        base = self._base if self._base is not None else self._load_base(run.training)
        self._base = None  # while an adapter is on it
        torch.manual_seed(run.training.seed)
        model = base.requires_grad_(True) if run.lora is None else build_adapter(base, run.lora, run.training.seed)
        identity = fingerprint(run, data.ready, self._job.base_sha256)
        member = Run(self._job, run, data, model, identity, self._cache, self._channel)
        member.start(self._cancellation)
        member.train(self._cancellation)
        result, self._base = member.finish()
        return result

    def close(self) -> None:
        """Give the cache's memory back."""
        self._cache.close()

    def _load_data(self, run: wire.TrainRun) -> RunData:
        tokenizer = self._tools.tokenizer
        return load_data(
            run,
            renderer(tokenizer, run.chat_template_kwargs),
            self._tools.encode,
            tokenizer.eos_token,
            self._tools.config.max_position_embeddings,
            self._channel.send,
        )

    def _load_base(self, training: wire.TrainingArguments) -> Any:
        import torch

        gc.collect()
        dtype = getattr(torch, training.dtype)
        return load_base(self._job.base_model_dir, dtype, pick_device(), in_4bit=training.load_in_4bit)

    def _warn(self, message: str) -> None:
        self._channel.send(wire.Log(level="warning", message=message))


def _weights_identity(job: wire.TrainJob) -> str:
    """What hidden states depend on besides the tokens: the base as it is held in memory."""
    training = job.runs[0].training
    return f"{job.base_sha256}-{training.dtype}{'-nf4' if training.load_in_4bit else ''}"
