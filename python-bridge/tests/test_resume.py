"""What a run remembers of the machine it was on, and what it says on another."""

import json
from pathlib import Path

import pytest
import tiny

from vivarium_bridge import _wire as wire
from vivarium_bridge import run as run_module
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.machine import Machine, machine_warning
from vivarium_bridge.train import run_train

CPU = Machine(device="cpu", num_threads=2)
GPU = Machine(device="NVIDIA H100 80GB HBM3", num_threads=2)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (CPU, CPU, None),
        (GPU, Machine(device=GPU.device, num_threads=9), None),
        (CPU, Machine(device="cpu", num_threads=9), "with 9 threads, until here it had 2"),
        (CPU, GPU, "on NVIDIA H100 80GB HBM3, until here it was on cpu"),
        (GPU, CPU, "on cpu, until here it was on NVIDIA H100 80GB HBM3"),
    ],
)
def test_another_machine_is_told_of(then, now, said):
    end = ": results stay within rounding but not bit for bit"
    assert machine_warning(then, now) == (None if said is None else f"the run goes on {said}{end}")


def state_file(job: wire.TrainJob) -> Path:
    return Path(job.runs[0].run_dir) / "last" / "state.json"


def test_a_run_goes_on_elsewhere_with_a_warning(make_job, recorder):
    job = make_job()
    run_train(job, recorder, Cancellation())
    state = json.loads(state_file(job).read_text())
    assert state["machine"] == {"device": "cpu", "num_threads": 1}
    run_train(job, recorder, Cancellation())
    assert not recorder.of(wire.Log)
    state_file(job).write_text(json.dumps({**state, "machine": {"device": "cpu", "num_threads": 7}}))
    run_train(job, recorder, Cancellation())
    (log,) = recorder.of(wire.Log)
    assert (log.level, log.message.partition(",")[0]) == ("warning", "the run goes on with 1 threads")
    assert len(recorder.of(wire.RunResult)) == 3


def stop_after(steps: int, monkeypatch) -> None:
    """Cancel a run when so many steps are done."""
    run_step = run_module.Loop.run_step

    def stopping(self, step, cancellation):
        if step == steps:
            raise BridgeError("CANCELLED", "cancelled by the driver")
        return run_step(self, step, cancellation)

    monkeypatch.setattr(run_module.Loop, "run_step", stopping)


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_checkpointing_that_was_needed_is_on_from_the_start(make_job, recorder, monkeypatch, is_elsewhere):
    """Memory ran short in the first step; on the same device no step runs short again."""
    job = make_job(gradient_checkpointing="auto")
    gradient, calls = run_module.Loop._gradient, []

    def run_short(self, step, cancellation):
        calls.append(step)
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 9 bytes.")
        return gradient(self, step, cancellation)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Loop, "_gradient", run_short)
        stop_after(2, patch)
        with pytest.raises(BridgeError, match="cancelled"):
            run_train(job, recorder, Cancellation())
    assert calls == [0, 0, 1]
    state = json.loads(state_file(job).read_text())
    assert (state["step"], state["gradient_checkpointing"]) == (2, True)
    if is_elsewhere:
        state["machine"]["device"] = "NVIDIA H100 80GB HBM3"
        state_file(job).write_text(json.dumps(state))
    run_train(job, recorder, Cancellation())
    began, went_on = recorder.of(wire.TrainStart)
    assert (began.gradient_checkpointing, went_on.gradient_checkpointing) == (False, not is_elsewhere)
    assert [step.step for step in recorder.of(wire.TrainStep)] == [1, 2, 1, 2, 3, 4]


def test_what_the_recipe_says_of_checkpointing_holds():
    loop = run_module.Loop(
        tiny.adapted(tiny.causal_lm()),
        tiny.token_rows(),
        [],
        tiny.training(gradient_checkpointing="off"),
        1,
        None,
        print,
    )
    assert not loop.prepare(Cancellation(), was_checkpointed=True).gradient_checkpointing
