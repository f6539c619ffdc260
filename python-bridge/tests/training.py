"""A training job in this process, for the tests of what it does and of what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from vivarium_bridge import _wire as wire
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.train import run_train


def adapter(job: wire.TrainJob, step: int) -> dict[str, np.ndarray]:
    return load_file(folder(job) / f"checkpoint-{step}" / "adapter_model.safetensors")


def folder(job: wire.TrainJob) -> Path:
    return Path(job.runs[0].run_dir)


def train(job, recorder) -> wire.RunResult:
    """Of the last run."""
    assert run_train(job, recorder, Cancellation()) == wire.TrainResult(runs=len(job.runs))
    return recorder.of(wire.RunResult)[-1]


def refusal(job, recorder) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        train(job, recorder)
    return caught.value
