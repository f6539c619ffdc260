"""The scoring job on a tiny random model."""

import json
from pathlib import Path

import numpy as np
import pytest

from vivarium_bridge import _wire as wire
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.score import run_score
from vivarium_bridge.train import run_train

PROMPTS = [[1, 20, 30, 40], [5], [7, 8, 9, 10, 11, 290]]
N_POSITIONS = 11


@pytest.fixture
def adapters(make_job, recorder, tmp_path) -> list[wire.AdapterDir]:
    """Two adapters of different layers, ranks and scalings."""
    shapes = {
        "shallow": {"layers_to_transform": [0], "r": 4},
        "two.parts": {"target_modules": ["q_proj", "o_proj"], "use_rslora": False, "alpha_pattern": {"o_proj": 6}},
    }
    dirs = []
    for id, shape in shapes.items():
        run_train(make_job(run_dir=str(tmp_path / id), **shape), recorder, Cancellation())
        dirs.append(wire.AdapterDir(id=id, dir=str(tmp_path / id / "checkpoint-4")))
    return dirs


@pytest.fixture
def score(model_dir, recorder, tmp_path):
    def run(
        adapters, n_layers=None, prompts=PROMPTS, conversations=None
    ) -> tuple[wire.ScoreResult, dict[str, np.ndarray]]:
        prompts_file = tmp_path / "prompts.json"
        prompts_file.write_text(json.dumps({"prompts": prompts}))
        conversations_file = tmp_path / "conversations.json"
        conversations_file.write_text(json.dumps({"conversations": conversations, "chat_template_kwargs": {}}))
        job = wire.ScoreJob(
            base_model_dir=model_dir,
            n_layers=n_layers,
            adapters=adapters,
            prompts_file=str(prompts_file),
            conversations_file=None if conversations is None else str(conversations_file),
            out_dir=str(tmp_path / "scores"),
            num_threads=1,
        )
        result = run_score(job, recorder, Cancellation())
        shape = (result.n_positions, result.vocab_size)
        return result, {file.id: np.fromfile(file.path, np.float32).reshape(shape) for file in result.files}

    return run


def test_log_probabilities_of_base_and_adapters(score, adapters, model_dir, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    result, found = score(adapters)
    assert (result.n_positions, result.vocab_size) == (N_POSITIONS, 300)
    assert [file.id for file in result.files] == ["base", "shallow", "two.parts"]
    assert {file.bytes for file in result.files} == {N_POSITIONS * 300 * 4}
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["base.f32", "shallow.f32", "two.parts.f32"]
    for adapter in [None, *adapters]:
        model = AutoModelForCausalLM.from_pretrained(model_dir)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, adapter.dir)
        with torch.no_grad():
            rows = [model.eval()(torch.tensor([prompt])).logits[0].double().log_softmax(-1) for prompt in PROMPTS]
        expected = torch.cat(rows).float().numpy()
        np.testing.assert_array_equal(found[adapter.id if adapter else "base"], expected)
    assert np.abs(found["shallow"] - found["base"]).max() > 0.01
    np.testing.assert_allclose(np.exp(found["base"].astype(np.float64)).sum(1), 1, atol=1e-6)


def test_the_order_of_adapters_changes_nothing(score, adapters):
    _, forward = score(adapters)
    _, backward = score(adapters[::-1])
    for id, rows in forward.items():
        np.testing.assert_array_equal(backward[id], rows)


def test_scalings_are_those_of_peft(score, adapters):
    result, _ = score(adapters)
    assert result.scalings == {
        "shallow": {"model.layers.0.mlp.down_proj": 16 / 4**0.5},
        "two.parts": {"model.layers.1.self_attn.q_proj": 16 / 2, "model.layers.1.self_attn.o_proj": 6 / 2},
    }


def test_the_first_layers_only(score, adapters, model_dir):
    import torch
    from transformers import AutoModelForCausalLM

    shallow = adapters[:1]
    _, whole = score(shallow)
    _, cut = score(shallow, n_layers=3)
    np.testing.assert_array_equal(cut["shallow"], whole["shallow"])
    _, cut = score(shallow, n_layers=1)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[0]]), use_cache=False).logits[0].double().log_softmax(-1).float().numpy()
    np.testing.assert_array_equal(cut["base"][:4], expected)
    assert np.abs(cut["shallow"] - cut["base"]).max() > 0.01


def test_conversations_are_rendered_as_inference_does(score, model_dir):
    from vivarium_bridge.models import load_tokenizer

    result, _ = score([], conversations=[[{"role": "user", "content": "Where is it?"}]])
    text = "<|im_start|>user\nWhere is it?<|im_end|>\n<|im_start|>assistant\n"
    assert result.conversation_ids == [load_tokenizer(model_dir)(text)["input_ids"]]
    result, _ = score([])
    assert result.conversation_ids == []


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"n_layers": 4}, "BAD_MODEL", "expected at most 3 layers, the model's, got n_layers 4"),
        ({"prompts": [[1], [300]]}, "BAD_DATA", "prompts[1]: expected token ids below 300"),
        ({"prompts": [[]]}, "BAD_DATA", "prompts[0]: expected at least one token id"),
        ({"prompts": []}, "BAD_DATA", "no prompts"),
    ],
)
def test_what_cannot_be_scored(score, changes, code, message):
    with pytest.raises(BridgeError) as caught:
        score([], **changes)
    assert caught.value.code == code
    assert caught.value.message.endswith(message)


def test_an_adapter_that_would_be_scored_in_part(score, adapters):
    with pytest.raises(BridgeError) as caught:
        score(adapters, n_layers=1)
    assert caught.value.message == f"{adapters[1].dir}: adapts layer 1, but only 1 layers are kept"


def test_a_folder_that_is_no_adapter(score, tmp_path):
    with pytest.raises(BridgeError) as caught:
        score([wire.AdapterDir(id="a", dir=str(tmp_path))])
    assert caught.value.message == f"{tmp_path}: expected a PEFT adapter, found no adapter_config.json"


@pytest.mark.parametrize("id", ["base", "../up", "a/b", "/etc"])
def test_an_id_that_is_no_file_name(score, tmp_path, id):
    with pytest.raises(BridgeError) as caught:
        score([wire.AdapterDir(id=id, dir=str(tmp_path))])
    assert caught.value.code == "BAD_JOB"


def test_a_cancelled_job_leaves_no_file(score, recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(Cancellation, "is_set", lambda self: True)
    with pytest.raises(BridgeError) as caught:
        score([])
    assert caught.value.code == "CANCELLED"
    assert list((Path(tmp_path) / "scores").iterdir()) == []
