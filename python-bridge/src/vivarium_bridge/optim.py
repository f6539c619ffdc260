"""Optimizers and learning rates, as ``transformers.Trainer`` makes them."""

import importlib
import math
from collections.abc import Callable
from typing import Any

from . import _wire as wire
from .errors import BridgeError


def make_optimizer(parameters: dict[str, Any], training: wire.TrainingArguments, device: Any) -> Any:
    """The optimizer of ``training.optim``; all parameters are decayed alike, as every LoRA matrix is by Trainer.

    Args:
        parameters: Trained parameters by name.
        training: Rates, betas and the optimizer's name.
        device: Of the parameters.

    Raises:
        BridgeError: ``BAD_JOB`` if the optimizer cannot run there: another one in its place would be another run.
    """
    import torch

    rate, decay = training.learning_rate, training.weight_decay
    betas = (training.adam_beta1, training.adam_beta2)
    trained = list(parameters.values())
    if training.optim == "sgd":
        return torch.optim.SGD(trained, lr=rate, weight_decay=decay)
    if training.optim == "adamw_8bit":
        bitsandbytes = load_bitsandbytes("adamw_8bit", "Use --set optim=adamw_torch.")
        return bitsandbytes.optim.AdamW8bit(
            trained, lr=rate, betas=betas, eps=training.adam_epsilon, weight_decay=decay
        )
    return torch.optim.AdamW(trained, lr=rate, betas=betas, eps=training.adam_epsilon, weight_decay=decay)


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
