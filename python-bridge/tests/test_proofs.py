"""Proofs refuse a checkpoint that is not what was trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import LORA
from safetensors.torch import load_file, save_file

from vivarium_bridge import _wire as wire
from vivarium_bridge import run as run_module
from vivarium_bridge.adapter import build_adapter, unload
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.checkpoint import save_adapter
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.models import load_base
from vivarium_bridge.precision import Precision
from vivarium_bridge.proofs import Proofs, check_proofs, prove_adapter
from vivarium_bridge.train import run_train

CPU = torch.device("cpu")
IDS = [5, 6, 7, 8, 9]


def trained(model_dir: str, dtype=torch.float32, **shape):
    model = build_adapter(load_base(model_dir, dtype, CPU), replace(LORA, **shape), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("use_dora", [False, True])
def test_a_good_checkpoint(model_dir, tmp_path, dtype, use_dora):
    model = trained(model_dir, dtype, use_dora=use_dora)
    save_adapter(model, tmp_path, 1)
    proofs, base = prove_adapter(model, tmp_path / "checkpoint-1", IDS, Precision(print))
    check_proofs(proofs, was_moved=True)
    assert proofs.max_abs_dlogit_vs_memory == 0
    assert proofs.max_abs_dlogit_merged is not None
    assert proofs.max_abs_dlogit_merged < 1e-4 < proofs.max_abs_dlogit_vs_base
    fresh = load_base(model_dir, dtype, CPU)
    for (name, weight), (_, other) in zip(base.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert torch.equal(weight, other) and weight.dtype == other.dtype, name
    assert [tensor.dtype for tensor in base.buffers()] == [tensor.dtype for tensor in fresh.buffers()]


@pytest.mark.parametrize("change", ["zeroed", "changed"])
def test_a_bad_checkpoint(model_dir, tmp_path, change):
    model = trained(model_dir)
    save_adapter(model, tmp_path, 1)
    path = tmp_path / "checkpoint-1" / "adapter_model.safetensors"
    weights = load_file(path)
    factor = 0.0 if change == "zeroed" else 1.001
    save_file({name: factor * tensor for name, tensor in weights.items()}, path, {"format": "pt"})
    proofs, _ = prove_adapter(model, tmp_path / "checkpoint-1", IDS, Precision(print))
    message = {
        "zeroed": r"training changed nothing: .* got 0 and 0",
        "changed": r"the last checkpoint, reloaded, is not the model that was trained: expected logits within 0.0001",
    }[change]
    with pytest.raises(BridgeError, match=message) as caught:
        check_proofs(proofs, was_moved=True)
    assert caught.value.code == "INTERNAL"


GOOD = Proofs(
    in_float32=True,
    adapter_norm=1,
    max_abs_dlogit_vs_base=1,
    max_abs_dlogit_vs_memory=0,
    max_abs_dlogit_merged=0,
    max_abs_logit=10,
)


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [
        ({}, False),
        ({"max_abs_dlogit_merged": None}, False),
        ({"max_abs_dlogit_merged": 0.009}, False),
        ({"max_abs_dlogit_merged": 0.011}, True),
        ({"max_abs_dlogit_vs_memory": 0.0009}, False),
        ({"max_abs_dlogit_vs_memory": 0.0011}, True),
        ({"adapter_norm": 0}, True),
        ({"max_abs_dlogit_vs_base": 0}, True),
        ({"max_abs_dlogit_vs_memory": 0.19, "in_float32": False}, False),
        ({"max_abs_dlogit_vs_memory": 0.21, "in_float32": False}, True),
    ],
)
def test_the_limits(change, is_refused):
    try:
        check_proofs(replace(GOOD, **change), was_moved=True)
    except BridgeError:
        assert is_refused
    else:
        assert not is_refused


def test_nothing_learned_is_right_where_nothing_was_to_be():
    check_proofs(replace(GOOD, adapter_norm=0, max_abs_dlogit_vs_base=0), was_moved=False)


def test_a_base_is_free_after_its_adapter(model_dir):
    base = unload(trained(model_dir))
    again = build_adapter(base, LORA, seed=1)
    assert [name for name, parameter in again.named_parameters() if parameter.requires_grad] == [
        f"base_model.model.model.layers.1.mlp.down_proj.lora_{side}.default.weight" for side in "AB"
    ]


@pytest.mark.parametrize("lora", [{}, {"lora": None, "learning_rate": 1e-3}])
def test_the_run_ends_with_the_refusal(make_job, recorder, monkeypatch, lora):
    """A disk that gives back other bytes than it was given."""
    proving = {name: getattr(run_module, name) for name in ("prove_adapter", "prove_model")}

    def spoil(name):
        def prove(model, *args):
            checkpoint = next(arg for arg in args if isinstance(arg, Path))
            (path,) = checkpoint.glob("*model.safetensors")
            weights = {name: tensor * 1.01 for name, tensor in load_file(path).items()}
            save_file(weights, path, {"format": "pt"})
            return proving[name](model, *args)

        return prove

    for name in proving:
        monkeypatch.setattr(run_module, name, spoil(name))
    with pytest.raises(BridgeError, match="is not the model that was trained"):
        run_train(make_job(**lora), recorder, Cancellation())
    assert not recorder.of(wire.RunResult)
