"""Optimizers and learning rates against transformers' own."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TRAINING
from transformers.optimization import get_scheduler

from vivarium_bridge.errors import BridgeError
from vivarium_bridge.optim import make_optimizer, make_schedule


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (3, 10), (5, 5), (9, 4), (0, 0)])
def test_rates_are_those_of_transformers(kind, warmup, steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler: Any = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    rate = make_schedule(replace(TRAINING, lr_scheduler_type=kind, warmup_steps=warmup, learning_rate=0.3), steps)
    (factor,) = scheduler.lr_lambdas
    assert [rate(step) for step in range(steps + 1)] == [0.3 * factor(step) for step in range(steps + 1)]


def test_what_the_optimizers_are_given():
    parameters = {"w": torch.nn.Parameter(torch.zeros(2))}
    training = replace(TRAINING, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)
    (group,) = make_optimizer(parameters, training, torch.device("cpu")).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.01)
    (group,) = make_optimizer(parameters, replace(training, optim="adamw_8bit"), torch.device("cpu")).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.01)
    (group,) = make_optimizer(parameters, replace(training, optim="sgd"), torch.device("cpu")).param_groups
    assert (group["momentum"], group["weight_decay"]) == (0, 0.01)


def test_8_bit_moments_where_a_matrix_is_large_enough():
    parameters = {name: torch.nn.Parameter(torch.ones(n)) for name, n in (("small", 4095), ("large", 4096))}
    optimizer = make_optimizer(parameters, replace(TRAINING, optim="adamw_8bit"), torch.device("cpu"))
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kinds = {name: optimizer.state[parameter]["state1"].dtype for name, parameter in parameters.items()}
    assert kinds == {"small": torch.float32, "large": torch.uint8}


def test_no_other_optimizer_takes_the_place_of_a_missing_one(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(BridgeError) as caught:
        make_optimizer({}, replace(TRAINING, optim="adamw_8bit"), torch.device("cpu"))
    assert (caught.value.code, caught.value.hint) == ("BAD_JOB", "Use --set optim=adamw_torch.")
