"""Base and adapter as one model folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bridge_process import BridgeProcess
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from vivarium_bridge import _wire as wire
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.files import file_ref
from vivarium_bridge.merge import run_merge
from vivarium_bridge.train import run_train


@pytest.fixture
def make_merge(any_model_dir, make_job, recorder, tmp_path):
    def make(dtype: Any = "float32", use_dora=False, **changes) -> wire.MergeJob:
        job = make_job(base_model_dir=any_model_dir, use_dora=use_dora, target_modules=["down_proj", "q_proj"])
        run_train(job, recorder, Cancellation())
        values = {"adapter_dir": f"{job.runs[0].run_dir}/checkpoint-4", "out_dir": str(tmp_path / "deep" / "merged")}
        return wire.MergeJob(base_model_dir=any_model_dir, dtype=dtype, num_threads=1, **{**values, **changes})

    return make


def logits(model) -> np.ndarray:
    with torch.inference_mode():
        return model.eval().float()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0].numpy()


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_merged_is_adapted(make_merge, recorder, dtype, use_dora):
    job = make_merge(dtype, use_dora)
    result = run_merge(job, recorder, Cancellation())
    base = AutoModelForCausalLM.from_pretrained(job.base_model_dir)
    plain = logits(base)
    adapted: Any = PeftModel.from_pretrained(base, job.adapter_dir)
    expected = logits(adapted)
    by_hand = adapted.merge_and_unload().to(getattr(torch, dtype)).state_dict()
    out_dir = Path(job.out_dir)
    merged = AutoModelForCausalLM.from_pretrained(out_dir)
    assert merged.state_dict().keys() == by_hand.keys()
    assert all(torch.equal(weight, by_hand[name]) for name, weight in merged.state_dict().items())
    if dtype == "float32":
        assert np.abs(logits(merged) - expected).max() < 1e-4 < 0.1 < np.abs(plain - expected).max()
    assert result.files == [file_ref(path, out_dir) for path in sorted(out_dir.iterdir())]
    names = [file.path for file in result.files]
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(names)
    template = AutoTokenizer.from_pretrained(job.base_model_dir).chat_template
    assert AutoTokenizer.from_pretrained(out_dir).chat_template == template


def test_the_generation_config_is_the_bases_own_even_where_transformers_would_refuse_it(make_merge, recorder, tmp_path):
    import shutil

    job = make_merge()
    base = tmp_path / "odd"
    shutil.copytree(job.base_model_dir, base)
    odd = b'{"do_sample": false, "temperature": 0.6, "eos_token_id": [1, 2]}'
    (base / "generation_config.json").write_bytes(odd)
    other = wire.MergeJob(
        base_model_dir=str(base),
        adapter_dir=job.adapter_dir,
        out_dir=job.out_dir,
        dtype="float32",
        num_threads=1,
    )
    run_merge(other, recorder, Cancellation())
    assert (Path(job.out_dir) / "generation_config.json").read_bytes() == odd


def test_nothing_is_overwritten(make_merge, recorder, tmp_path):
    job = make_merge(out_dir=str(tmp_path))
    with pytest.raises(BridgeError) as caught:
        run_merge(job, recorder, Cancellation())
    assert (caught.value.code, caught.value.message) == (
        "BAD_JOB",
        f"{tmp_path}: expected no such folder, found one",
    )


def test_a_folder_that_is_no_adapter(make_merge, recorder, tmp_path):
    job = make_merge(adapter_dir=str(tmp_path))
    with pytest.raises(BridgeError, match="found no adapter_config.json"):
        run_merge(job, recorder, Cancellation())
    assert not Path(job.out_dir).exists()


def test_a_cancelled_merge_leaves_nothing(make_merge, recorder):
    job = make_merge()
    cancellation = Cancellation()
    cancellation.set()
    with pytest.raises(BridgeError, match="cancelled"):
        run_merge(job, recorder, cancellation)
    assert not Path(job.out_dir).exists()


def test_as_a_process(make_merge):
    job = make_merge()
    events = BridgeProcess(job).rest()
    assert [event["type"] for event in events] == ["hello", "log", "merge_result", "exit"]
    assert json.loads((Path(job.out_dir) / "config.json").read_text())["dtype"] == "float32"
