"""Runs that share a process: each is what it would be alone, and the base stays what it was."""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from vivarium_bridge import _wire as wire
from vivarium_bridge import train as train_module
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.train import run_train

TIMES = ("seconds", "tokens_per_second", "mfu", "peak_memory_bytes", "prefix_cache")
MEMBERS = {
    "plain": {"lora_dropout": 0.3, "save_steps": 2},
    "dora": {"use_dora": True, "seed": 3, "target_modules": ["down_proj", "q_proj"], "optim": "adamw_8bit"},
    "lengths": {"batching": "by_length", "layers_to_transform": [2], "test_size": 0.3, "eval_steps": 2},
}


@pytest.fixture
def members(make_run, tmp_path):
    def make(folder: str, **shared) -> list[wire.TrainRun]:
        return [
            make_run(run_dir=str(tmp_path / folder / name), **{**shape, **shared}) for name, shape in MEMBERS.items()
        ]

    return make


def digests(runs: list[wire.TrainRun]) -> dict[str, str]:
    return {
        f"{Path(run.run_dir).name}/{path.parent.name}/{path.name}": sha256(path.read_bytes()).hexdigest()
        for run in runs
        for path in sorted(Path(run.run_dir).glob("checkpoint-*/*"))
    }


def told(events: list[wire.Event]) -> list[dict]:
    """All that does not tell of time, of memory or of which run of the job it was."""
    kept = [asdict(event) for event in events if not isinstance(event, wire.RunStart)]
    return [{key: value for key, value in event.items() if key not in TIMES} for event in kept]


def weights_digest(base) -> str:
    digest = sha256()
    for name, tensor in sorted(base.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tensor.device}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_member_is_the_same_run_alone(make_job, members, recorder, cache, dtype):
    together = members("together", dtype=dtype)
    run_train(make_job(runs=together, cache=cache), recorder, Cancellation())
    shared = list(recorder.events)
    assert [event.index for event in recorder.of(wire.RunStart)] == [0, 1, 2]
    assert all(start.prefix_cache is cache for start in recorder.of(wire.TrainStart))
    recorder.events.clear()
    alone = members("alone", dtype=dtype)
    for run in alone:
        run_train(make_job(runs=[run], cache=cache), recorder, Cancellation())
    assert digests(together) == digests(alone)
    assert told(shared) == told(recorder.events)


@pytest.mark.parametrize(
    "shared", [{"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "load_in_4bit": True}]
)
def test_the_base_stays_bit_for_bit(make_job, members, recorder, monkeypatch, shared):
    found = []
    load = train_module.load_base

    def loading(*args, **kwargs):
        base = load(*args, **kwargs)
        found.append((base, weights_digest(base)))
        return base

    class Watched(train_module.Run):
        def finish(self):
            result, base = super().finish()
            found.append((base, weights_digest(base)))
            return result, base

    monkeypatch.setattr(train_module, "load_base", loading)
    monkeypatch.setattr(train_module, "Run", Watched)
    run_train(make_job(runs=members("runs", **shared), cache=True), recorder, Cancellation())
    bases, hashes = zip(*found, strict=True)
    assert len(found) == 1 + len(MEMBERS)  # loaded once
    assert len({id(base) for base in bases}) == 1
    assert len(set(hashes)) == 1
    assert not hasattr(bases[0], "peft_config")
    assert not any("lora" in name for name, _ in bases[0].named_modules())


def test_a_member_that_fails_ends_the_job(make_job, make_run, recorder, tmp_path):
    good = make_run(run_dir=str(tmp_path / "good"))
    bad = make_run(run_dir=str(tmp_path / "bad"), dataset_file=str(tmp_path / "none.jsonl"))
    after = replace(good, run_dir=str(tmp_path / "after"))
    with pytest.raises(BridgeError, match="no such file"):
        run_train(make_job(runs=[good, bad, after]), recorder, Cancellation())
    assert len(recorder.of(wire.RunResult)) == 1
    assert not (tmp_path / "after").exists()
    recorder.events.clear()
    run_train(make_job(runs=[good, after]), recorder, Cancellation())
    assert [start.resumed_from_step for start in recorder.of(wire.TrainStart)] == [4, 0]


def test_a_member_that_diverges_keeps_its_last_good_state(make_job, make_run, recorder, tmp_path):
    from safetensors.torch import load_file

    good = make_run(run_dir=str(tmp_path / "good"))
    wild = {"learning_rate": 1e30, "warmup_steps": 0, "max_grad_norm": 0.0, "optim": "sgd", "max_steps": 50}
    bad = make_run(run_dir=str(tmp_path / "bad"), **wild)
    told = []
    for _attempt in range(2):  # it says the same of itself again
        recorder.events.clear()
        with pytest.raises(BridgeError) as caught:
            run_train(make_job(runs=[good, bad]), recorder, Cancellation())
        assert caught.value.code == "NON_FINITE_LOSS"
        told.append(caught.value.message)
        assert len(recorder.of(wire.RunResult)) == 1
        last = tmp_path / "bad" / "last"
        step = json.loads((last / "state.json").read_text())["step"]
        assert sorted(path.name for path in last.iterdir()) == [f"state-{step}.safetensors", "state.json"]
        assert all(tensor.isfinite().all() for tensor in load_file(last / f"state-{step}.safetensors").values())
        assert recorder.of(wire.TrainStart)[1].resumed_from_step <= step < 50
    assert told[0] == told[1]


def test_a_run_keeps_the_cache_mode_it_began_in(make_job, recorder):
    run_train(make_job(cache=True), recorder, Cancellation())
    run_train(make_job(cache=False), recorder, Cancellation())
    assert [start.prefix_cache for start in recorder.of(wire.TrainStart)] == [True, True]
    (first, second) = recorder.of(wire.RunResult)
    assert first.prefix_cache is not None and second.prefix_cache is not None


def test_members_share_the_cache(make_job, make_run, recorder, tmp_path):
    runs = [make_run(run_dir=str(tmp_path / str(seed)), seed=seed) for seed in range(2)]
    run_train(make_job(runs=runs, cache=True), recorder, Cancellation())
    first, second = (result.prefix_cache for result in recorder.of(wire.RunResult))
    assert first is not None and second is not None
    assert (first.misses, second.misses) == (7, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ({}, {"dtype": "bfloat16"}),
            "job.runs: expected one dtype for the base they share, got ['bfloat16', 'float32']",
        ),
        (
            ({}, {"load_in_4bit": True}),
            "job.runs: expected one load_in_4bit for the base they share, got [False, True]",
        ),
        (
            ({}, {"lora": None}),
            "job.runs: a run that trains all weights must be alone: it changes the base",
        ),
        ((), "job.runs: expected at least one run, got none"),
    ],
)
def test_what_cannot_be_together(make_job, make_run, recorder, changes, message):
    with pytest.raises(BridgeError) as caught:
        run_train(make_job(runs=[make_run(**change) for change in changes]), recorder, Cancellation())
    assert (caught.value.code, caught.value.message) == ("BAD_JOB", message)
    assert recorder.events == []
