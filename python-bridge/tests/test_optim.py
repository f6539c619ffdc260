"""Optimizers and learning rates against transformers' own."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from conftest import TRAINING
from transformers.optimization import get_scheduler

from vivarium_bridge.errors import BridgeError
from vivarium_bridge.optim import make_optimizer, make_schedule, moment_dtype


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (3, 10), (5, 5), (9, 4), (0, 0)])
def test_rates_are_those_of_transformers(kind, warmup, steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler: Any = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    rate = make_schedule(replace(TRAINING, lr_scheduler_type=kind, warmup_steps=warmup, learning_rate=0.3), steps)
    (factor,) = scheduler.lr_lambdas
    assert [rate(step) for step in range(steps + 1)] == [0.3 * factor(step) for step in range(steps + 1)]


class Plain(torch.nn.Module):
    """Vectors of ones by name."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        for name, size in sizes.items():
            self.register_parameter(name, torch.nn.Parameter(torch.ones(size)))


def test_what_the_optimizers_are_given():
    model = Plain(w=2)
    training = replace(TRAINING, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)
    (group,) = make_optimizer(model, training).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.01)
    (group,) = make_optimizer(model, replace(training, optim="adamw_8bit")).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.01)
    (group,) = make_optimizer(model, replace(training, optim="sgd")).param_groups
    assert (group["momentum"], group["weight_decay"]) == (0, 0.01)


def step_once(optimizer: Any, parameters: Any) -> None:
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def test_8_bit_moments_where_a_matrix_is_large_enough():
    model = Plain(small=4095, large=4096)
    optimizer = make_optimizer(model, replace(TRAINING, optim="adamw_8bit"))
    step_once(optimizer, model.parameters())
    kinds = {name: optimizer.state[parameter]["state1"].dtype for name, parameter in model.named_parameters()}
    assert kinds == {"small": torch.float32, "large": torch.uint8}


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_8bit", "sgd"])
@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("lora", [None, {"target_modules": "all-linear", "layers_to_transform": None}])
@pytest.mark.parametrize("use_dora", [False, True])
def test_what_is_decayed_is_what_trainer_decays(kind, optim, lora, use_dora):
    base = tiny.causal_lm(kind)
    model = base.requires_grad_(True) if lora is None else tiny.adapted(base, use_dora=use_dora, **lora)
    groups = make_optimizer(model, tiny.training(optim=optim)).param_groups
    found = [(group["weight_decay"], [id(p) for p in group["params"]]) for group in groups]
    wanted = tiny.trainer_groups(model, tiny.training())
    assert found == [(decay, [id(p) for p in group]) for decay, group in wanted]
    assert len(found) == (2 if lora is None else 1)  # biases and norms are not decayed; all of an adapter is


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_embeddings_keep_32_bits(kind):
    model = tiny.causal_lm(kind, hidden_size=64, intermediate_size=96).requires_grad_(True)
    optimizer = make_optimizer(model, tiny.training(optim="adamw_8bit"))
    step_once(optimizer, model.parameters())
    embedding = model.get_input_embeddings().weight
    matrix = model.model.layers[0].mlp.up_proj.weight
    assert optimizer.state[embedding]["state1"].dtype == moment_dtype(optimizer, embedding) == torch.float32
    assert optimizer.state[matrix]["state1"].dtype == moment_dtype(optimizer, matrix) == torch.uint8
    head = torch.float32 if kind == "qwen3" else torch.uint8  # tied, or a linear layer
    assert optimizer.state[model.lm_head.weight]["state1"].dtype == head


def test_an_optimizer_leaves_nothing_for_the_next_one():
    model = tiny.causal_lm().requires_grad_(True)
    optimizer: Any = make_optimizer(model, tiny.training(optim="adamw_8bit"))
    step_once(optimizer, model.parameters())
    shared = type(optimizer.mng).get_instance()
    assert (shared.pid2config, shared.index2config, shared.module_weight_config_triple) == ({}, {}, [])


def test_no_other_optimizer_takes_the_place_of_a_missing_one(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(BridgeError) as caught:
        make_optimizer(Plain(w=2), replace(TRAINING, optim="adamw_8bit"))
    assert (caught.value.code, caught.value.hint) == ("BAD_JOB", "Use --set optim=adamw_torch.")
