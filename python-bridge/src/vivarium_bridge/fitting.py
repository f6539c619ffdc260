"""What fits into memory: gradient checkpointing, and the batch size to ask for instead."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from . import _wire as wire
from .errors import OUT_OF_MEMORY_TEXTS, BridgeError
from .optim import moment_dtype

Probe = Callable[[int], None]
"""Computes the longest micro-batch at some ``per_device_train_batch_size``, with its gradient."""
FRAGMENTED_SHARE = 0.03
"""Of a GPU's memory: batches of many shapes leave gaps between their blocks that one batch alone does not show."""
SWITCHED_ON = "does not fit into memory: gradient checkpointing is switched on"
LAST_RESORT = "Lower max_length, set load_in_4bit or use a smaller model."


def set_checkpointing(layers: Any, split_layer: int, is_on: bool) -> None:
    """Keep only the inputs of each layer above the split for the backward pass, which computes the rest again.

    Non-reentrant: the reentrant kind gives no gradient unless its input requires one, and transformers' own switch
    therefore makes embeddings require it, so that everything below the split is differentiated.

    Source: transformers ``PreTrainedModel.activation_checkpointing_enable`` (5.23.0), which this replaces.

    Args:
        layers: The decoder's layers, or None.
        split_layer: The lowest to be checkpointed.
        is_on: Whether to checkpoint.

    Raises:
        BridgeError: ``BAD_MODEL`` if the model's layers cannot be checkpointed.
    """
    from torch.utils.checkpoint import checkpoint

    layers = [] if layers is None else list(layers)
    can = bool(layers) and all(hasattr(layer, "gradient_checkpointing") for layer in layers)
    if is_on and not can:
        raise BridgeError("BAD_MODEL", "gradient_checkpointing: the layers of this model cannot be checkpointed")
    for index, layer in enumerate(layers if can else []):
        layer.gradient_checkpointing = is_on and index >= split_layer  # an earlier run may have left it on below
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


@contextmanager
def shortage_named(message: str) -> Iterator[None]:
    """Name what was too much for the memory.

    Raises:
        BridgeError: ``OUT_OF_MEMORY``.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise BridgeError("OUT_OF_MEMORY", message, LAST_RESORT) from error


def fit(
    training: wire.TrainingArguments, switch: Callable[[bool], None], probe: Probe, info: Callable[[str], None]
) -> bool:
    """Decide on gradient checkpointing by trying.

    Args:
        training: ``gradient_checkpointing`` and the batch sizes.
        switch: Sets gradient checkpointing.
        probe: Tried at most once for each batch size and setting.
        info: Told when checkpointing had to be switched on.

    Returns:
        Whether gradient checkpointing is on.

    Raises:
        BridgeError: ``OUT_OF_MEMORY`` naming the batch sizes that would fit.
    """
    mode, size = training.gradient_checkpointing, training.per_device_train_batch_size
    if mode != "on":
        switch(False)
        if fits(probe, size):
            return False
        if mode == "off":
            raise _does_not_fit(training, probe)
        info(f"the longest batch {SWITCHED_ON}")
    switch(True)
    if fits(probe, size):
        return True
    raise _does_not_fit(training, probe)


def fits(probe: Probe, size: int) -> bool:
    """Whether a probe runs within memory; what it held is freed."""
    try:
        probe(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    free()  # out here: the exception holds the frames, and they hold the activations
    return False


def smaller_sizes(training: wire.TrainingArguments) -> Iterator[int]:
    """About half of the batch size, a quarter, ... that divide the rows of a step."""
    size = training.per_device_train_batch_size
    rows = size * training.gradient_accumulation_steps
    while size > 1:
        size = next(part for part in range(size // 2, 0, -1) if rows % part == 0)
        yield size


def random_state(device: Any) -> tuple[Any, Any]:
    """State of torch's random number generators of the host and of the model's GPU, for ``set_random_state``."""
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(device: Any, state: tuple[Any, Any]) -> None:
    """Go on with the random numbers that followed a state."""
    import torch

    host, gpu = state
    torch.set_rng_state(host)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu, device)


@contextmanager
def mode(model: Any, is_training: bool) -> Iterator[None]:
    """Training or evaluation mode; afterwards each module is in its own again."""
    before = [(module, module.training) for module in model.modules()]
    model.train(is_training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


def reserve(optimizer: Any, parameters: dict[str, Any], training: wire.TrainingArguments, device: Any) -> list[Any]:
    """Memory to be held during a probe: what the optimizer takes in its first step, and what fragmentation wastes."""
    import torch

    held: list[Any] = []
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        held.append(torch.empty(int(FRAGMENTED_SHARE * total), dtype=torch.uint8, device=device))
    if optimizer.state or training.optim == "sgd":
        return held
    moments = [(p, moment_dtype(optimizer, p)) for p in parameters.values() for _moment in range(2)]
    return held + [torch.empty_like(parameter, dtype=dtype) for parameter, dtype in moments]


def _does_not_fit(training: wire.TrainingArguments, probe: Probe) -> BridgeError:
    size = training.per_device_train_batch_size
    rows = size * training.gradient_accumulation_steps
    what = f"{size} rows at once do not fit into memory"
    smaller = next((part for part in smaller_sizes(training) if fits(probe, part)), None)
    if smaller is None:
        return BridgeError("OUT_OF_MEMORY", f"{what}, and neither does the longest row alone", LAST_RESORT)
    hint = (
        f"Set per_device_train_batch_size to {smaller} and gradient_accumulation_steps to {rows // smaller}:"
        " the result is the same up to rounding."
    )
    if training.gradient_checkpointing == "off":
        hint += " Or set gradient_checkpointing to auto."
    return BridgeError("OUT_OF_MEMORY", f"{what}: {smaller} do", hint)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocator gave up, on the host or on a GPU."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def free() -> None:
    """Give back what the frames of a failed attempt held. To be called when its exception is gone."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
