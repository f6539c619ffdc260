"""What fits into memory: gradient checkpointing, and the batch size to ask for instead."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from . import _wire as wire
from .errors import OUT_OF_MEMORY_TEXTS, BridgeError

Probe = Callable[[int], None]
"""Computes the longest micro-batch at some ``per_device_train_batch_size``, with its gradient."""


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
        info("the longest batch does not fit into memory: gradient checkpointing is switched on")
    switch(True)
    if fits(probe, size):
        return True
    raise _does_not_fit(training, probe)


def fits(probe: Probe, size: int) -> bool:
    """Whether a probe runs within memory; what it held is freed."""
    try:
        probe(size)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not _is_out_of_memory(error):
            raise
    else:
        return True
    _free()  # out here: the exception holds the frames, and they hold the activations
    return False


def smaller_sizes(training: wire.TrainingArguments) -> Iterator[int]:
    """About half of the batch size, a quarter, ... that divide the rows of a step."""
    size = training.per_device_train_batch_size
    rows = size * training.gradient_accumulation_steps
    while size > 1:
        size = next(part for part in range(size // 2, 0, -1) if rows % part == 0)
        yield size


@contextmanager
def random_state_kept(device: Any) -> Iterator[None]:
    """Restore torch's random number generators of the host and of one GPU."""
    import torch

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def reserve_optimizer_state(optimizer: Any, parameters: dict[str, Any], training: wire.TrainingArguments) -> list[Any]:
    """Memory of the size that the optimizer will take in its first step, to be held during a probe."""
    import torch

    if optimizer.state or training.optim == "sgd":
        return []
    dtype = torch.uint8 if training.optim == "adamw_8bit" else None
    return [torch.empty_like(p, dtype=dtype) for p in parameters.values() for _moment in range(2)]


def _does_not_fit(training: wire.TrainingArguments, probe: Probe) -> BridgeError:
    size = training.per_device_train_batch_size
    rows = size * training.gradient_accumulation_steps
    what = f"{size} rows at once do not fit into memory"
    smaller = next((part for part in smaller_sizes(training) if fits(probe, part)), None)
    if smaller is None:
        return BridgeError(
            "OUT_OF_MEMORY",
            f"{what}, and neither does the longest row alone",
            "Lower max_length, set load_in_4bit or use a smaller model.",
        )
    hint = (
        f"Set per_device_train_batch_size to {smaller} and gradient_accumulation_steps to {rows // smaller}:"
        " the result is the same up to rounding."
    )
    if training.gradient_checkpointing == "off":
        hint += " Or set gradient_checkpointing to auto."
    return BridgeError("OUT_OF_MEMORY", f"{what}: {smaller} do", hint)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
