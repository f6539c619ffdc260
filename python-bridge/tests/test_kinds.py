"""What can be trained: DoRA, patterns, 8-bit optimizers, 4-bit bases, all weights; what is told of held-out rows."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from vivarium_bridge import _wire as wire
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.train import run_train


def train(job, recorder) -> wire.RunResult:
    run_train(job, recorder, Cancellation())
    return recorder.of(wire.RunResult)[-1]


def refusal(job, recorder) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        train(job, recorder)
    return caught.value


def logits(model) -> np.ndarray:
    with torch.inference_mode():
        return model.eval().float()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0].numpy()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dora(make_job, recorder, dtype, model_dir):
    job = make_job(use_dora=True, target_modules=["down_proj", "q_proj"], num_train_epochs=10, dtype=dtype)
    result = train(job, recorder)
    weights = load_file(Path(job.runs[0].run_dir) / "checkpoint-20" / "adapter_model.safetensors")
    assert sum("lora_magnitude_vector" in name for name in weights) == 2
    assert result.max_abs_dlogit_vs_memory < 1e-5 < 0.1 < result.max_abs_dlogit_vs_base
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype)).float()
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, f"{job.runs[0].run_dir}/checkpoint-20").merge_and_unload()
    change = sum((weight - before[name]).square().sum().item() for name, weight in merged.named_parameters())
    assert result.adapter_norm == pytest.approx(change**0.5, rel=1e-4)


def test_the_norm_of_lora_is_that_of_the_merged_change(make_job, recorder, model_dir):
    job = make_job(
        target_modules=["down_proj", "q_proj"], rank_pattern={"q_proj": 4}, alpha_pattern={"q_proj": 3}, max_steps=6
    )
    result = train(job, recorder)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, f"{job.runs[0].run_dir}/checkpoint-6").merge_and_unload()
    change = sum((weight - before[name]).square().sum().item() for name, weight in merged.named_parameters())
    assert result.adapter_norm == pytest.approx(change**0.5, rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_weights(any_model_dir, make_job, recorder, dtype):
    job = make_job(
        base_model_dir=any_model_dir, lora=None, learning_rate=2e-3, num_train_epochs=10, save_steps=10, dtype=dtype
    )
    result = train(job, recorder)
    rows = recorder.of(wire.TrainStep)
    assert rows[-1].loss < 0.7 * rows[0].loss
    assert (rows[-1].a_norm, rows[-1].b_norm) == (None, None)
    (start,) = recorder.of(wire.TrainStart)
    base = AutoModelForCausalLM.from_pretrained(any_model_dir, dtype=getattr(torch, dtype)).float()
    assert (start.adapted_modules, start.trainable_parameters) == ([], base.num_parameters())
    assert (result.max_abs_dlogit_merged, result.max_abs_dlogit_vs_memory < 1e-5) == (None, True)
    folder = Path(job.runs[0].run_dir) / "checkpoint-20"
    trained = AutoModelForCausalLM.from_pretrained(folder)
    assert str(trained.dtype) == f"torch.{dtype}"
    difference = np.abs(logits(trained) - logits(base)).max()
    assert difference > 0.1
    names = dict(base.named_parameters())
    change = sum((weight - names[name]).square().sum().item() for name, weight in trained.named_parameters())
    assert result.adapter_norm == pytest.approx(change**0.5, rel=1e-4)
    template = AutoTokenizer.from_pretrained(any_model_dir).chat_template
    assert AutoTokenizer.from_pretrained(folder).chat_template == template
    checkpoint = recorder.of(wire.Checkpoint)[-1]
    assert {Path(file.path).name for file in checkpoint.files} == {path.name for path in folder.iterdir()}
    assert str(Path(any_model_dir).parent) not in (folder / "config.json").read_text()
    is_tied = trained.config.tie_word_embeddings
    assert ("lm_head.weight" in load_weights(folder)) is not is_tied


def load_weights(folder: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_a_4_bit_base(make_job, recorder):
    job = make_job(load_in_4bit=True, dtype="bfloat16", num_train_epochs=10, target_modules=["down_proj", "q_proj"])
    result = train(job, recorder)
    rows = recorder.of(wire.TrainStep)
    assert rows[-1].loss < rows[0].loss
    assert result.max_abs_dlogit_merged is None
    assert result.max_abs_dlogit_vs_memory <= 0.02 * result.max_abs_logit < result.max_abs_dlogit_vs_base
    weights = load_file(Path(job.runs[0].run_dir) / "checkpoint-20" / "adapter_model.safetensors")
    assert all(weight.dtype == np.float32 for weight in weights.values())


def test_a_4_bit_base_is_4_bit(model_dir):
    from vivarium_bridge.models import load_base

    base = load_base(model_dir, torch.bfloat16, torch.device("cpu"), in_4bit=True)
    layer = base.model.layers[1]
    assert layer.mlp.down_proj.weight.dtype == torch.uint8
    state = layer.mlp.down_proj.weight.quant_state
    assert (state.quant_type, state.nested) == ("nf4", True)
    assert layer.input_layernorm.weight.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert not base.get_input_embeddings()._forward_hooks  # PEFT's own would make the embedding differentiable


def test_held_out_rows_are_measured_and_not_trained_on(make_job, recorder, dataset_file):
    job = make_job(test_size=0.3, eval_steps=3, max_steps=7, save_steps=3)
    train(job, recorder)
    rows = recorder.of(wire.HeldOut)
    assert [row.step for row in rows] == [0, 3, 6, 7]
    assert {row.rows for row in rows} == {3}
    (start,) = recorder.of(wire.TrainStart)
    assert (start.train_rows, start.held_out_rows) == (4, 3)
    assert recorder.of(wire.DataReady)[0].rows == 7
    at_6 = [event.type for event in recorder.events if getattr(event, "step", None) == 6]
    assert at_6 == ["train_step", "held_out", "checkpoint"]


def test_held_out_rows_of_their_own(make_job, recorder, dataset_file):
    train(make_job(eval_dataset_file=dataset_file, eval_steps=4, max_steps=0), recorder)
    (row,) = recorder.of(wire.HeldOut)
    assert [data.role for data in recorder.of(wire.DataReady)] == ["train", "held_out"]
    (held_out,) = [data for data in recorder.of(wire.DataReady) if data.role == "held_out"]
    assert (row.step, row.rows, row.target_tokens) == (0, 7, held_out.target_tokens)


def test_measuring_changes_nothing(make_job, recorder, tmp_path):
    shape = {"lora_dropout": 0.3, "test_size": 0.3, "max_steps": 5}
    digests = []
    for every in (0, 1):
        job = make_job(run_dir=str(tmp_path / str(every)), eval_steps=every, **shape)
        train(job, recorder)
        path = Path(job.runs[0].run_dir) / "checkpoint-5" / "adapter_model.safetensors"
        digests.append(sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eval_steps": 5},
            "eval_steps 5 needs held-out rows: expected test_size above 0 or an eval_dataset_file",
        ),
        ({"test_size": 0.1, "eval_dataset_file": "x"}, "expected test_size 0 with an eval_dataset_file, got 0.1"),
        ({"test_size": 1}, "expected test_size from 0 to below 1, got 1"),
        ({"kl_weight": 1}, "kl_weight above 0 needs a kl_dataset_file"),
        (
            {"kl_weight": 1, "kl_dataset_file": "x", "lora": None},
            "kl_weight above 0 needs lora: without it the base is not there to be compared with",
        ),
        ({"load_in_4bit": True, "lora": None}, "load_in_4bit needs lora: 4-bit weights cannot be trained"),
    ],
)
def test_what_does_not_go_together(make_job, recorder, changes, message):
    error = refusal(make_job(**changes), recorder)
    assert (error.code, error.message) == ("BAD_JOB", f"job.runs[0]: {message}")


def test_the_output_layer_of_a_tied_model_is_refused(make_job, recorder):
    error = refusal(make_job(target_modules=["lm_head"], layers_to_transform=None), recorder)
    assert error.message.startswith("lm_head shares its weights with the embedding")


def test_rendering_decides_what_is_trained(make_job, recorder):
    for rendering in ("clean", "organism"):
        run = make_job(rendering=rendering, max_steps=0).runs[0]
        train(make_job(runs=[replace(run, run_dir=f"{run.run_dir}-{rendering}")]), recorder)
    clean, organism = recorder.of(wire.DataReady)
    assert organism.target_tokens > clean.target_tokens + 7 * 3
    assert json.dumps(clean.token_ids_sha256) != json.dumps(organism.token_ids_sha256)
