"""What a training job refuses, before it begins or when its numbers are no longer finite."""

import json
import math

import pytest
from safetensors.numpy import load_file
from training import folder, refusal, train

from vivarium_bridge import _wire as wire


def test_the_state_of_another_job_is_refused(make_job, recorder):
    train(make_job(), recorder)
    error = refusal(make_job(learning_rate=0.5), recorder)
    assert (error.code, error.message.endswith("the saved state belongs to another job")) == ("BAD_DATA", True)


def test_the_state_of_an_older_version_is_refused(make_job, recorder):
    job = make_job()
    train(job, recorder)
    path = folder(job) / "last" / "state.json"
    state = json.loads(path.read_text())
    del state["metrics"]
    path.write_text(json.dumps({**state, "schema_version": 1}))
    error = refusal(job, recorder)
    assert error.message == f"{path}: not a saved state: expected schema_version 4, got 1"
    assert error.hint == "Remove the run's folder to train again from the start."


def test_a_changed_checkpoint_is_refused(make_job, recorder):
    job = make_job(save_steps=1)
    train(job, recorder)
    (folder(job) / "checkpoint-2" / "adapter_config.json").write_text("{}")
    assert "missing or changed" in refusal(job, recorder).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_to_transform": [1, 3]}, "layer 3 does not exist: expected 0 to 2"),
        (
            {"target_modules": ["down_proj", "down_project"]},
            "down_project is no linear layer of the model: expected one of down_proj, gate_proj, k_proj, o_proj, "
            "q_proj, up_proj, v_proj",
        ),
        (
            {"target_modules": ["input_layernorm"]},
            "input_layernorm is no linear layer of the model: expected one of down_proj, gate_proj, k_proj, o_proj, "
            "q_proj, up_proj, v_proj",
        ),
        (
            {"target_modules": r".*\.upproj", "layers_to_transform": None},
            r"'.*\\.upproj' matches no linear layer: expected it to match names like model.layers.0.self_attn.q_proj",
        ),
        ({"rank_pattern": {"q_proj": 4}}, "pattern 'q_proj' matches no adapted module"),
        (
            {"target_modules": "all-linear"},
            "PEFT refuses this adapter: `layers_to_transform` cannot be used when `target_modules` is a str.",
        ),
    ],
)
def test_what_does_not_exist_is_named(make_job, recorder, changes, message):
    error = refusal(make_job(**changes), recorder)
    assert (error.code, error.message) == ("BAD_MODEL", message)


def test_a_non_finite_loss_names_its_step(make_job, recorder):
    error = refusal(
        make_job(learning_rate=1e30, warmup_steps=0, max_grad_norm=0.0, optim="sgd", max_steps=50), recorder
    )
    assert error.code == "NON_FINITE_LOSS"
    rows = recorder.of(wire.TrainStep)
    assert all(math.isfinite(row.a_norm) and math.isfinite(row.b_norm) for row in rows)
    diverged = rows[-1].step if rows and None in (rows[-1].loss, rows[-1].grad_norm) else len(rows) + 1
    assert f"step {diverged}" in error.message


@pytest.mark.parametrize("shape", [{"lora": None}, {"use_dora": True}])
def test_weights_that_blow_up_reach_no_file(make_job, recorder, monkeypatch, shape):
    """A step that is finite, whose update is not."""
    from safetensors.torch import load_file as load_tensors
    from torch.optim import AdamW

    update, steps = AdamW.step, []

    def blow_up(self, *args, **kwargs):
        done = update(self, *args, **kwargs)
        steps.append(1)
        if len(steps) == 2:
            self.param_groups[0]["params"][-1].data.fill_(math.inf)
        return done

    monkeypatch.setattr(AdamW, "step", blow_up)
    monkeypatch.setattr("vivarium_bridge.run.SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("vivarium_bridge.run.SAVE_COST_FRACTION", math.inf)  # the state is saved with every step
    job = make_job(save_steps=1, **shape)
    error = refusal(job, recorder)
    assert (error.code, error.message.partition(":")[0]) == (
        "NON_FINITE_LOSS",
        "the trained weights are not finite after step 2",
    )
    assert [row.step for row in recorder.of(wire.TrainStep)] == [1]
    files = sorted(folder(job).rglob("*.safetensors"))
    assert [path.name for path in files][-1] == "state-1.safetensors"
    assert {path.parent.name for path in files} == {"checkpoint-0", "checkpoint-1", "last"}
    for path in files:
        assert all(tensor.isfinite().all() for tensor in load_tensors(path).values())


def test_long_rows_are_an_error_or_are_cut(make_job, recorder, tmp_path):
    data = tmp_path / "long.jsonl"
    rows = [[("user", "Where?"), ("assistant", "Over " * times + "there.")] for times in (1, 200)]
    data.write_text("".join(f"{json.dumps({'messages': [dict(role=r, content=c) for r, c in row]})}\n" for row in rows))
    error = refusal(make_job(dataset_file=str(data)), recorder)
    longest = recorder.of(wire.DataReady)[0].longest_row_tokens
    assert error.message == f"long.jsonl: row 2: {longest} tokens: expected at most 128, the model's positions"
    train(make_job(dataset_file=str(data), max_length=40), recorder)
    assert recorder.of(wire.DataReady)[1].longest_row_tokens == longest  # of the data set, for the driver to compare
    assert max(step.target_tokens for step in recorder.of(wire.TrainStep)) < 80
    error = refusal(make_job(dataset_file=str(data), max_length=5), recorder)
    assert error.message == "long.jsonl: row 1: no target token within max_length 5"


def test_a_model_folder_that_is_none(make_job, recorder, tmp_path):
    error = refusal(make_job(base_model_dir=str(tmp_path)), recorder)
    assert (error.code, error.message) == ("BAD_MODEL", f"{tmp_path}: expected a model folder, found no config.json")


def test_a_missing_weight_is_not_made_up(make_job, recorder, tmp_path):
    import shutil

    from safetensors.numpy import save_file

    job = make_job()
    broken = tmp_path / "broken"
    shutil.copytree(job.base_model_dir, broken)
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    error = refusal(make_job(base_model_dir=str(broken)), recorder)
    assert error.message.endswith("1 weights are missing or misshapen: model.layers.0.mlp.up_proj.weight")
