"""Training a tiny random model on the CPU, in this process."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training import adapter, folder, train

from vivarium_bridge import _wire as wire


def test_the_loss_falls_and_all_is_reported(any_model_dir, make_job, recorder):
    job = make_job(
        base_model_dir=any_model_dir, num_train_epochs=10, target_modules="all-linear", layers_to_transform=None
    )
    result = train(job, recorder)
    order = [event.type for event in recorder.events]
    assert order[:4] == ["run_start", "data_ready", "train_start", "checkpoint"]
    assert order[-1] == "run_result"
    steps = recorder.of(wire.TrainStep)
    assert [step.step for step in steps] == list(range(1, 21))
    losses = [step.loss for step in steps]
    assert (losses[-1] or 9) < 0.5 * (losses[0] or 0)
    assert steps[0].learning_rate == 0  # the first step of a warm-up, as in transformers
    assert steps[0].b_norm == 0 < (steps[-1].b_norm or 0)
    assert steps[-1].epoch == 10
    assert result.steps == 20
    assert result.adapter_norm > 0
    assert result.max_abs_dlogit_vs_base > 0.1
    assert result.max_abs_dlogit_vs_memory < 1e-5
    assert result.max_abs_dlogit_merged is not None
    assert result.max_abs_dlogit_merged < 1e-3


def test_plain_peft_finds_its_own_names(make_job, recorder, model_dir):
    job = make_job()
    train(job, recorder)
    names = [f"base_model.model.model.layers.1.mlp.down_proj.lora_{side}.weight" for side in "AB"]
    assert sorted(adapter(job, 4)) == names
    assert adapter(job, 4)[names[0]].dtype == np.float32
    config = json.loads((folder(job) / "checkpoint-4" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-qwen3"
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (2, 16, True)
    assert str(Path(model_dir).parent) not in json.dumps(config)
    (start,) = recorder.of(wire.TrainStart)
    assert start.adapted_modules == ["model.layers.1.mlp.down_proj"]
    assert start.trainable_parameters == 2 * (64 + 32)


def test_only_lora_parameters_are_trained(model_dir):
    import torch
    from conftest import LORA

    from vivarium_bridge.adapter import build_adapter
    from vivarium_bridge.models import load_base

    base = load_base(model_dir, torch.float32, torch.device("cpu"))
    model = build_adapter(base, LORA, seed=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2
    assert all("layers.1.mlp.down_proj.lora_" in name for name in trained)


def test_the_batch_may_be_cut_in_any_way(make_job, recorder, tmp_path):
    shapes = [(1, 6), (2, 3), (6, 1)]
    jobs = [
        make_job(
            run_dir=str(tmp_path / f"{size}x{count}"),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            optim="sgd",
            learning_rate=1.0,
            warmup_steps=0,
        )
        for size, count in shapes
    ]
    for job in jobs:
        train(job, recorder)
    first, *others = [adapter(job, 4) for job in jobs]
    assert max(np.abs(weight).max() for weight in first.values()) > 0.01
    for other in others:
        for name, weight in first.items():
            np.testing.assert_allclose(other[name], weight, atol=1e-6, rtol=1e-5)


def test_the_loss_is_the_mean_over_target_tokens_as_transformers_computes_it(make_job, recorder, model_dir):
    """One step with batch size 1 against the model's own loss on hand-masked labels."""
    import torch
    from transformers import AutoModelForCausalLM

    from vivarium_bridge.dataset import load_rows
    from vivarium_bridge.models import encoder, load_tokenizer, renderer
    from vivarium_bridge.order import step_window

    job = make_job(per_device_train_batch_size=1, gradient_accumulation_steps=1, max_steps=1)
    train(job, recorder)
    tokenizer = load_tokenizer(model_dir)
    rows = load_rows(Path(job.runs[0].dataset_file), renderer(tokenizer, {}), encoder(tokenizer), "<|im_end|>")
    row = rows[step_window(job.runs[0].training, len(rows), 0)[0]]
    ids = torch.tensor([row.ids])
    labels = torch.where(torch.tensor([row.targets]), ids, -100)
    expected = AutoModelForCausalLM.from_pretrained(model_dir)(input_ids=ids, labels=labels).loss.item()
    assert recorder.of(wire.TrainStep)[0].loss == pytest.approx(expected, rel=1e-6)


def test_checkpoints_at_every_due_step(make_job, recorder):
    job = make_job(max_steps=5, save_steps=2, save_at_steps=[1, 9])
    train(job, recorder)
    checkpoints = recorder.of(wire.Checkpoint)
    assert [checkpoint.step for checkpoint in checkpoints] == [0, 1, 2, 4, 5]
    assert [ref.path for ref in checkpoints[1].files] == [
        "checkpoint-1/adapter_config.json",
        "checkpoint-1/adapter_model.safetensors",
    ]
    assert sorted(path.name for path in folder(job).iterdir()) == [
        ".bridge.lock",
        *(f"checkpoint-{step}" for step in (0, 1, 2, 4, 5)),
        "last",
    ]
    assert sorted(path.name for path in (folder(job) / "last").iterdir()) == ["state-5.safetensors", "state.json"]


def test_no_steps_leave_the_initial_adapter_and_its_proofs(make_job, recorder):
    result = train(make_job(max_steps=0), recorder)
    assert result.steps == 0
    assert result.adapter_norm == result.max_abs_dlogit_vs_base == 0
    assert [checkpoint.step for checkpoint in recorder.of(wire.Checkpoint)] == [0]


def test_bfloat16_base_and_float32_adapter(make_job, recorder):
    job = make_job(dtype="bfloat16", num_train_epochs=10)
    result = train(job, recorder)
    assert all(weight.dtype == np.float32 for weight in adapter(job, 20).values())
    assert result.max_abs_dlogit_vs_memory < 1e-5
    losses = [step.loss for step in recorder.of(wire.TrainStep)]
    assert losses[-1] < losses[0]


def test_a_finished_run_reports_itself_again(make_job, recorder):
    job = make_job(save_steps=1)
    first = train(job, recorder)
    run, data, start, *told, _ = recorder.events
    recorder.events.clear()
    again = train(job, recorder)
    assert [(event.type, event.step) for event in told][:3] == [("checkpoint", 0), ("train_step", 1), ("checkpoint", 1)]
    assert recorder.events == [run, data, replace(start, resumed_from_step=4), *told, again]
    assert replace(again, peak_memory_bytes=first.peak_memory_bytes) == first
