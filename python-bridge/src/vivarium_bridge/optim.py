"""Optimizers and learning rates, as ``transformers.Trainer`` makes them."""

import importlib
import math
import re
from collections.abc import Callable
from typing import Any

from . import _wire as wire
from .errors import BridgeError

UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""In names of parameters. Source: transformers ``Trainer.get_decay_parameter_names`` (5.23.0)."""


def make_optimizer(model: Any, training: wire.TrainingArguments) -> Any:
    """The optimizer of ``training.optim`` over the parameters that are trained.

    Args:
        model: The model, perhaps with an adapter.
        training: Rates, betas and the optimizer's name.

    Raises:
        BridgeError: ``BAD_JOB`` if the optimizer cannot run there: another one in its place would be another run.
    """
    import torch

    groups = _groups(model, training.weight_decay)
    rate, betas = training.learning_rate, (training.adam_beta1, training.adam_beta2)
    if training.optim == "sgd":
        return torch.optim.SGD(groups, lr=rate)
    if training.optim == "adamw_8bit":
        bitsandbytes = load_bitsandbytes("adamw_8bit", "Use --set optim=adamw_torch.")
        optimizer = bitsandbytes.optim.AdamW8bit(groups, lr=rate, betas=betas, eps=training.adam_epsilon)
        _keep_embeddings_in_32_bit(optimizer, model, bitsandbytes.optim.GlobalOptimManager)
        return optimizer
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=training.adam_epsilon)


def moment_dtype(optimizer: Any, parameter: Any) -> Any:
    """Of Adam's moments of a parameter; bitsandbytes' for small ones is not told apart, since they take nothing.

    Args:
        optimizer: From ``make_optimizer``.
        parameter: One of those that it updates.
    """
    import torch

    manager = getattr(optimizer, "mng", None)
    if manager is None:
        return parameter.dtype
    return torch.float32 if id(parameter) in manager.pid2config else torch.uint8


def _groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """Biases and norms are not decayed, all else is, every matrix and magnitude of an adapter too.

    Source: transformers ``Trainer.create_optimizer`` (5.23.0).
    """
    import torch

    norms = [f"{name}." for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)]
    groups: dict[float, list[Any]] = {decay: [], 0.0: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_undecayed = UNDECAYED.search(name.lower()) or name.startswith(tuple(norms))
            groups[0.0 if is_undecayed else decay].append(parameter)
    return [{"params": group, "weight_decay": rate} for rate, group in groups.items() if group]


def _keep_embeddings_in_32_bit(optimizer: Any, model: Any, manager: Any) -> None:
    """Embeddings have moments in float32: 8 bits are too few for rows of which most gradients are zero.

    By a manager of the optimizer's own: the global one goes by the addresses of parameters of any model, for ever.

    Source: transformers ``Trainer.create_optimizer`` (5.23.0); bitsandbytes ``GlobalOptimManager`` (0.50.2).
    """
    import torch

    optimizer.mng = object.__new__(manager)
    optimizer.mng.initialize()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.weight.requires_grad:
            optimizer.mng.override_config(module.weight, "optim_bits", 32)


def load_bitsandbytes(wanted_for: str, hint: str) -> Any:
    """The package of 8-bit optimizers and 4-bit weights, which is not made for every platform.

    Raises:
        BridgeError: ``BAD_JOB`` if it is not installed.
    """
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise BridgeError(
            "BAD_JOB", f"{wanted_for} needs bitsandbytes, which this machine lacks: {error}", hint
        ) from error


def make_schedule(training: wire.TrainingArguments, steps: int) -> Callable[[int], float]:
    """Learning rate of a step, counted from 0: a pure function, so that it has no state to resume.

    Source: transformers ``optimization.py`` (5.23.0), ``_get_*_schedule*_lr_lambda``; ``constant`` has no warm-up.

    Args:
        training: The schedule's name, its peak and its warm-up.
        steps: Of the whole run.
    """
    kind, warmup = training.lr_scheduler_type, training.warmup_steps

    def factor(step: int) -> float:
        if kind == "constant":
            return 1.0
        if step < warmup:
            return step / max(1, warmup)
        if kind == "constant_with_warmup":
            return 1.0
        if kind == "linear":
            return max(0.0, (steps - step) / max(1, steps - warmup))
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))

    return lambda step: training.learning_rate * factor(step)
