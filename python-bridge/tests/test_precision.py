"""Where a proof is computed, by what there is, and what it is worth where there is little."""

from pathlib import Path

import pytest
import torch
from conftest import LORA
from peft.tuners.lora.layer import Linear

from vivarium_bridge import _wire as wire
from vivarium_bridge import precision as precision_module
from vivarium_bridge.adapter import build_adapter
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.checkpoint import save_adapter
from vivarium_bridge.models import load_base
from vivarium_bridge.precision import AS_TRAINED, Memory, Precision, proof_place
from vivarium_bridge.prefix_cache import PrefixCache
from vivarium_bridge.proofs import check_proofs, prove_adapter
from vivarium_bridge.train import run_train

IDS = [5, 6, 7, 8, 9]
GB = 10**9


def memory(billions: float, *, gpu: float | None, host: float, **changes) -> Memory:
    """Of a bfloat16 model with so many billions of weights; free GB beside it."""
    n_weights = int(billions * GB)
    free = None if gpu is None else int(gpu * GB)
    values = {"held_bytes": 2 * n_weights, "cache_bytes": 0, **changes}
    return Memory(n_weights=n_weights, gpu_free_bytes=free, host_free_bytes=int(host * GB), **values)


@pytest.mark.parametrize(
    ("found", "place"),
    [
        (memory(0.5, gpu=75, host=100), "here"),
        (memory(14, gpu=80 - 28, host=100), "here"),  # 62.7 GB with what is to spare
        (memory(14, gpu=34, host=100), "host"),  # of 80 GB, others hold 18
        (memory(32, gpu=80 - 64, host=128), "as trained"),  # 142 GB, and the host has 128
        (memory(32, gpu=80 - 64, host=250), "host"),
        (memory(32, gpu=80 - 64, host=100, cache_bytes=100 * GB), "host without cache"),
        (memory(32, gpu=80 - 64, host=100, cache_bytes=100 * GB, kept_bytes=64 * GB), "as trained"),
        (memory(32, gpu=160, host=10, cache_bytes=100 * GB), "here"),
        (memory(3, gpu=None, host=8.5), "host"),  # 14.3 GB, of which it holds 6
        (memory(3, gpu=None, host=8), "as trained"),
        (memory(3, gpu=None, host=8, cache_bytes=GB), "host without cache"),
        (memory(3, gpu=None, host=0, held_bytes=12 * GB), "here"),  # float32 already
        (memory(3, gpu=0, host=0, held_bytes=12 * GB), "here"),
    ],
)
def test_the_place(found, place):
    assert proof_place(found) == place


def trained(model_dir: str, folder: Path, **changes):
    model = build_adapter(load_base(model_dir, torch.bfloat16, torch.device("cpu")), LORA, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    save_adapter(model, folder, 1)
    return model


def assert_base_is_as_it_was(base, model_dir: str) -> None:
    fresh = load_base(model_dir, torch.bfloat16, torch.device("cpu"))
    for (name, weight), (_, other) in zip(base.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert torch.equal(weight, other) and weight.dtype == other.dtype, name


def assert_proved_as_trained(proofs) -> None:
    assert not proofs.in_float32
    assert proofs.max_abs_dlogit_merged is None
    assert proofs.max_abs_dlogit_vs_memory == 0 < proofs.max_abs_dlogit_vs_base
    check_proofs(proofs, was_moved=True)


def test_short_memory_is_seen_before(model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(precision_module, "available_bytes", lambda: 0)
    model = trained(model_dir, tmp_path)
    told: list[str] = []
    proofs, base = prove_adapter(model, tmp_path / "checkpoint-1", IDS, Precision(told.append))
    assert told == [AS_TRAINED]
    assert_proved_as_trained(proofs)
    assert_base_is_as_it_was(base, model_dir)


@pytest.mark.parametrize("calls_before", [0, 1])
def test_an_allocation_that_fails_all_the_same(model_dir, tmp_path, calls_before):
    model = trained(model_dir, tmp_path)
    calls = 0

    def run_short(*_):
        nonlocal calls
        calls += 1
        if calls == calls_before + 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 bytes.")

    handle = model.get_base_model().model.layers[2].mlp.register_forward_hook(run_short)
    told: list[str] = []
    proofs, base = prove_adapter(model, tmp_path / "checkpoint-1", IDS, Precision(told.append))
    handle.remove()
    assert told == [AS_TRAINED]
    assert_proved_as_trained(proofs)
    assert_base_is_as_it_was(base, model_dir)


def test_a_merge_that_does_not_fit_is_left_out(model_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(Linear, "get_delta_weight", fail)
    model = trained(model_dir, tmp_path)
    told: list[str] = []
    proofs, base = prove_adapter(model, tmp_path / "checkpoint-1", IDS, Precision(told.append))
    assert told == ["merging is not proved: memory is too short"]
    assert proofs.in_float32
    assert proofs.max_abs_dlogit_merged is None
    check_proofs(proofs, was_moved=True)
    assert_base_is_as_it_was(base, model_dir)


def test_another_error_is_not_taken_for_short_memory(model_dir, tmp_path):
    model = trained(model_dir, tmp_path)

    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model.get_base_model().model.layers[2].mlp.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="mat1"):
        prove_adapter(model, tmp_path / "checkpoint-1", IDS, Precision(print))


@pytest.mark.parametrize(("free", "is_kept"), [(2**31, True), (2**29, False)])
def test_the_cache_gives_way_where_it_must(model_dir, tmp_path, monkeypatch, free, is_kept):
    cache = PrefixCache("0" * 64, 2**31, tmp_path / "cache", print)
    space = cache.space({}, torch.float32, 4)
    space.put([1, 2], torch.zeros(2, 4))
    monkeypatch.setattr(PrefixCache, "memory_bytes", property(lambda _: 2**30))  # of which little is used here
    monkeypatch.setattr(precision_module, "available_bytes", lambda: free)
    model = trained(model_dir, tmp_path)
    proofs, _ = prove_adapter(model, tmp_path / "checkpoint-1", IDS, Precision(print, cache))
    assert proofs.in_float32
    assert (space.get([1, 2]) is not None) == is_kept


@pytest.mark.parametrize("lora", [{}, {"lora": None, "learning_rate": 1e-2}])
def test_a_run_on_a_full_host(make_job, recorder, monkeypatch, lora):
    monkeypatch.setattr(precision_module, "available_bytes", lambda: 0)
    run_train(make_job(dtype="bfloat16", **lora), recorder, Cancellation())
    (result,) = recorder.of(wire.RunResult)
    assert result.max_abs_dlogit_merged is None
    assert result.max_abs_dlogit_vs_memory == 0 < result.max_abs_dlogit_vs_base
    assert [log.message for log in recorder.of(wire.Log)] == [AS_TRAINED]
