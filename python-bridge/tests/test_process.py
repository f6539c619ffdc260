"""The bridge as a process: protocol, cancel, crash and resume, full disk."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from socket import gethostname

import pytest
from bridge_process import BridgeProcess

from vivarium_bridge import _wire as wire


def adapter_digests(run_dir: str) -> dict[str, str]:
    paths = sorted(Path(run_dir).glob("checkpoint-*/*"))
    return {path.relative_to(run_dir).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(autouse=True, scope="module")
def _imports():
    """What every fork needs, once."""
    import torch

    torch.set_num_threads(1)  # a fork has none of the other threads
    import peft  # noqa: F401
    import transformers.optimization
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    assert transformers.optimization


def test_hello_comes_first_and_one_terminal_event_last(make_job):
    events = BridgeProcess(make_job()).rest()
    assert [event["type"] for event in events] == [
        *("hello", "run_start", "data_ready", "train_start", "checkpoint"),
        *["train_step"] * 4,
        *("checkpoint", "run_result", "train_result", "exit"),
    ]
    assert events[0]["schema_sha256"] == wire.SCHEMA_SHA256
    assert events[0]["packages"]["peft"]
    assert events[-1]["code"] == 0


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="asks torch for the GPU's name")
def test_a_real_process_says_hello_before_it_imports_torch():
    """With the packages' folder only, so that any import of torch would fail."""
    reader, writer = os.pipe()
    script = "import sys; sys.modules['torch'] = None; from vivarium_bridge.__main__ import main; sys.exit(main())"
    source = Path(__file__).parent.parent / "src"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "BRIDGE_EVENT_FD": str(writer), "PYTHONPATH": str(source)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writer],
        check=False,
    )
    os.close(writer)
    with os.fdopen(reader) as events:
        types = [json.loads(line)["type"] for line in events]
    assert (types, ended.returncode) == (["hello", "failure"], 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "the job is not JSON: Expecting property name enclosed in double quotes: line 2 column 1 (char 2)"),
        ('{"type": "bake"}', "job.type: expected one of train, merge, score, logprobs, sample, got 'bake'"),
    ],
)
def test_a_bad_job_is_a_failure(line, message):
    *_, failure, end = BridgeProcess(line).rest()
    assert (failure["code"], failure["message"], end["code"]) == ("BAD_JOB", message, 1)


KILLED = {
    "dropout": {"lora_dropout": 0.3, "target_modules": ["down_proj", "q_proj"]},
    "cache": {"lora_dropout": 0.3, "cache": True, "layers_to_transform": [2], "batching": "by_length"},
    "kl": {"kl_weight": 1e3, "kl_batch_size": 2, "use_dora": True},
    "4bit": {"load_in_4bit": True, "dtype": "bfloat16", "lora_dropout": 0.3, "layers_to_transform": None},
    "8bit": {"optim": "adamw_8bit", "r": 128},  # from 4096 elements on a matrix has 8-bit moments
}


def without_times(events: list[dict]) -> list[dict]:
    times = {"seconds", "tokens_per_second", "peak_memory_bytes"}
    return [{key: value for key, value in event.items() if key not in times} for event in events]


@pytest.mark.parametrize("how", KILLED)
def test_resume_after_kill_9_is_bit_identical(make_job, dataset_file, tmp_path, how, monkeypatch):
    """Three kills at random events, the state saved at every step; weights and metrics are those of a whole run."""
    monkeypatch.setattr("vivarium_bridge.run.SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("vivarium_bridge.run.SAVE_COST_FRACTION", 1e9)
    shape = {"num_train_epochs": 15, "save_steps": 2, "test_size": 0.2, "eval_steps": 5, **KILLED[how]}
    shape["kl_dataset_file"] = dataset_file if how == "kl" else None
    whole = make_job(run_dir=str(tmp_path / "whole"), **shape)
    told = BridgeProcess(whole).rest()
    job = make_job(run_dir=str(tmp_path / "killed"), **shape)
    dice = random.Random(0)
    resumed_from = []
    for _ in range(3):
        bridge = BridgeProcess(job)
        resumed_from.append(bridge.next("train_start")["resumed_from_step"])
        for _ in range(dice.randint(4, 12)):
            next(bridge.events())
        bridge.kill()
    again = BridgeProcess(job).rest()
    assert again[-2]["type"] == "train_result"
    assert resumed_from == sorted(resumed_from) and resumed_from[-1] > 0
    digests = adapter_digests(whole.runs[0].run_dir)
    assert len(digests) == 2 * 16
    assert adapter_digests(job.runs[0].run_dir) == digests
    kinds = {"train_step", "held_out", "checkpoint"}
    rows = [without_times([event for event in events if event["type"] in kinds]) for events in (told, again)]
    assert rows[0] == rows[1]


def test_a_checkpoint_ahead_of_the_state_is_made_again(make_job):
    """Nothing but the start was saved when the process is killed, and yet all ends as if it had not been."""
    job = make_job(lora_dropout=0.3, max_steps=40, save_steps=1)
    bridge = BridgeProcess(job)
    while bridge.next("checkpoint")["step"] < 5:
        pass
    bridge.kill()
    before = adapter_digests(job.runs[0].run_dir)
    events = BridgeProcess(job).rest()
    (start,) = [event for event in events if event["type"] == "train_start"]
    assert start["resumed_from_step"] == 0
    after = adapter_digests(job.runs[0].run_dir)
    assert len(before) >= 2 * 6 and before.items() <= after.items()


def test_no_metrics_row_is_lost_with_the_driver_and_no_two_processes_write(make_job):
    """The driver is gone while a step is being made; the next bridge starts before the orphan has ended."""
    job = make_job(max_steps=300, lora_dropout=0.3, save_steps=3)
    orphan = BridgeProcess(job)
    read = orphan.next("train_step")["step"]
    os.kill(orphan.pid, signal.SIGSTOP)
    orphan.stop_reading()
    heir = BridgeProcess(job)
    log = heir.next("log")
    assert (
        log["message"]
        == f"{job.runs[0].run_dir}: waiting for process {orphan.pid} on {gethostname()}, which still writes here"
    )
    os.kill(orphan.pid, signal.SIGCONT)
    assert orphan.wait() == 1
    resumed = heir.next("train_start")["resumed_from_step"]
    assert resumed > read
    events = heir.rest()
    assert [event["step"] for event in events if event["type"] == "train_step"] == list(range(1, 301))
    assert [event["step"] for event in events if event["type"] == "checkpoint"] == list(range(0, 301, 3))
    assert events[-1]["code"] == 0


@pytest.mark.parametrize("how", ["end_of_stdin", "sigterm"])
def test_cancel_saves_and_resumes_where_it_stopped(make_job, recorder, tmp_path, how):
    shape = {"lora_dropout": 0.3, "max_steps": 3000}
    job = make_job(**shape)
    bridge = BridgeProcess(job)
    bridge.next("train_step")
    if how == "sigterm":
        os.kill(bridge.pid, signal.SIGTERM)
    else:
        bridge.end_stdin()
    *steps, failure, end = bridge.rest()
    assert (failure["type"], failure["code"], end["code"]) == ("failure", "CANCELLED", 1)
    state = json.loads((Path(job.runs[0].run_dir) / "last" / "state.json").read_text())
    assert state["step"] == (steps[-1]["step"] if steps else 1)


def test_a_driver_that_stops_reading_ends_the_job(make_job):
    bridge = BridgeProcess(make_job(max_steps=3000))
    bridge.next("train_step")
    bridge.stop_reading()
    assert bridge.wait() == 1


@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ({"target_modules": "all-linear", "layers_to_transform": None, "r": 8}, 60_000),
        ({"lora": None, "learning_rate": 1e-3}, 150_000),  # less than the weights of the whole model
    ],
)
def test_a_full_disk_leaves_nothing_half_written(make_job, shape, limit):
    """A limit on the size of files stands in for a full disk: the state is larger than the first checkpoint."""
    job = make_job(num_train_epochs=5, save_steps=2, **shape)

    def limit_file_size():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    *_, failure, end = BridgeProcess(job, limit_file_size).rest()
    assert (failure["code"], end["code"]) == ("DISK_FULL", 1)
    left = [path for path in Path(job.runs[0].run_dir).rglob("*") if path.is_file()]
    assert all(path.stat().st_size < limit and not path.name.startswith(".part-") for path in left)
    *_, result, _end = BridgeProcess(job).rest()
    assert result["type"] == "train_result"


@pytest.mark.parametrize(
    "changes", [{"dtype": "float32"}, {"dtype": "bfloat16"}, {"optim": "adamw_8bit"}], ids=lambda changes: str(changes)
)
def test_all_weights_resume_bit_for_bit(make_job, tmp_path, changes):
    """Cancelled, then gone on with, against a run that nothing stopped."""
    shape = {"lora": None, "learning_rate": 1e-3, "max_steps": 30, "save_steps": 10, **changes}
    whole = make_job(run_dir=str(tmp_path / "whole"), **shape)
    BridgeProcess(whole).rest()
    job = make_job(run_dir=str(tmp_path / "stopped"), **shape)
    bridge = BridgeProcess(job)
    while bridge.next("train_step")["step"] < 4:
        pass
    bridge.end_stdin()
    bridge.rest()
    events = BridgeProcess(job).rest()
    (start,) = [event for event in events if event["type"] == "train_start"]
    assert start["resumed_from_step"] >= 4
    digests = adapter_digests(whole.runs[0].run_dir)
    assert len([name for name in digests if name.endswith("model.safetensors")]) == 4
    assert adapter_digests(job.runs[0].run_dir) == digests


def test_a_job_for_llama_cpp_is_refused():
    job = {
        "type": "logprobs",
        **{key: "x" for key in ("base_gguf", "prompts_file", "out_dir")},
        **{"adapters": [], "kv_type": "F32", "flash_attention": False, "num_threads": 1, "gpu": False},
    }
    *_, failure, _end = BridgeProcess(json.dumps(job)).rest()
    assert failure["message"] == "expected a train, merge or score job, got logprobs: llama.cpp runs that one"
