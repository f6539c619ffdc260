"""The LoRA adapter: checked against the model before anything heavy starts, then built by PEFT."""

import re
from dataclasses import asdict
from typing import Any

from . import _wire as wire
from .errors import BridgeError

ADAPTER_NAME = "default"
"""PEFT's name for the only adapter. Source: peft ``get_peft_model``."""
OUTPUT_LAYER = "lm_head"
"""Source: peft ``utils/constants.py`` ``EMBEDDING_LAYER_NAMES`` (0.21.2)."""
LAYER_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")
"""Source: peft ``tuners_utils.check_target_module_exists`` (0.21.2)."""


def lora_config(shape: wire.LoraShape) -> Any:
    """PEFT's config for a shape.

    Raises:
        BridgeError: ``BAD_MODEL`` if PEFT refuses the combination.
    """
    from peft import LoraConfig

    try:
        return LoraConfig(**asdict(shape), task_type="CAUSAL_LM", bias="none")
    except ValueError as error:
        raise BridgeError("BAD_MODEL", f"PEFT refuses this adapter: {error}") from error


def check_shape(shape: wire.LoraShape, model_config: Any) -> None:
    """Compare a shape with the model's module names, which need no weights.

    Raises:
        BridgeError: ``BAD_MODEL`` naming a layer, module or pattern that does not exist. PEFT would adapt the rest
            and say nothing.
    """
    lora_config(shape)
    n_layers = model_config.num_hidden_layers
    for layer in shape.layers_to_transform or []:
        if layer >= n_layers:
            raise BridgeError("BAD_MODEL", f"layer {layer} does not exist: expected 0 to {n_layers - 1}")
    names = linear_names(model_config)
    adapted = [name for name in names if _is_target(shape, name)]
    if isinstance(shape.target_modules, list):
        for target in shape.target_modules:
            if not any(_ends_with(name, target) for name in adapted):
                leaves = sorted({name.rsplit(".", 1)[-1] for name in names if layer_of(name) is not None})
                raise BridgeError(
                    "BAD_MODEL", f"{target} is no linear layer of the model: expected one of {', '.join(leaves)}"
                )
    elif shape.target_modules != "all-linear" and not adapted:
        raise BridgeError(
            "BAD_MODEL", f"{shape.target_modules!r} matches no linear layer: expected it to match names like {names[0]}"
        )
    if model_config.tie_word_embeddings and any(name.endswith(OUTPUT_LAYER) for name in adapted):
        raise BridgeError(
            "BAD_MODEL",
            f"{OUTPUT_LAYER} shares its weights with the embedding: merging an adapter on one would change both",
        )
    for layer in shape.layers_to_transform or []:
        if not any(layer_of(name) == layer for name in adapted):
            raise BridgeError("BAD_MODEL", f"layer {layer} has none of the modules {shape.target_modules}")
    for pattern in (*shape.rank_pattern, *shape.alpha_pattern):
        if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in adapted or names):
            raise BridgeError("BAD_MODEL", f"pattern {pattern!r} matches no adapted module")


def linear_names(model_config: Any) -> list[str]:
    """Names of the layers that PEFT can adapt, from a model built without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    return [name for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))]


def layer_of(module_name: str) -> int | None:
    """The decoder layer that a module is in."""
    match = LAYER_INDEX.match(f"{module_name}.")
    return int(match.group(1)) if match else None


def build_adapter(base: Any, shape: wire.LoraShape, seed: int) -> Any:
    """Put a fresh adapter on a base. Its initial weights are a function of the seed, on any device.

    Raises:
        BridgeError: ``BAD_MODEL`` if PEFT cannot adapt one of the modules.
    """
    import torch
    from peft import get_peft_model

    torch.manual_seed(seed)
    try:
        return get_peft_model(base, lora_config(shape))
    except ValueError as error:
        raise BridgeError("BAD_MODEL", f"PEFT refuses this adapter: {error}") from error


def unload(model: Any) -> Any:
    """Take an adapter off: the base as it was, bit for bit, ready for another one."""
    base = model.unload()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        if leftover in vars(base):
            delattr(base, leftover)
    return base.requires_grad_(False).eval()


def scalings(model: Any) -> dict[str, float]:
    """PEFT's own factor on B A for each adapted module, by the module's name in the base model."""
    return {
        name.removeprefix("base_model.model."): float(layer.scaling[ADAPTER_NAME])
        for name, layer in _lora_layers(model)
    }


def adapter_norm(model: Any) -> float:
    """Frobenius norm of the change that the adapter makes to the weights, over all modules together, unitless."""
    total = sum(
        _dora_square(layer) if ADAPTER_NAME in layer.use_dora and layer.use_dora[ADAPTER_NAME] else _lora_square(layer)
        for _, layer in _lora_layers(model)
    )
    return max(total, 0.0) ** 0.5


def _lora_square(layer: Any) -> float:
    """``|s BA|^2 = s^2 sum((B^T B) * (A A^T))``: r x r numbers where B A may be as large as the model."""
    a = layer.lora_A[ADAPTER_NAME].weight.detach().double().cpu()
    b = layer.lora_B[ADAPTER_NAME].weight.detach().double().cpu()
    return layer.scaling[ADAPTER_NAME] ** 2 * float(((b.T @ b) * (a @ a.T)).sum())


def _dora_square(layer: Any) -> float:
    """``|m (W + s BA) / |W + s BA| - W|^2``, the row norms taken over the inputs.

    Source: Liu et al. 2024, "DoRA", equation 5; peft ``tuners/lora/dora.py`` (0.21.2).
    """
    import torch
    from peft.utils.integrations import dequantize_module_weight

    with torch.no_grad():
        weight = dequantize_module_weight(layer.get_base_layer()).float()
        delta = layer.get_delta_weight(ADAPTER_NAME).float()
        if layer.fan_in_fan_out:
            weight, delta = weight.T, delta.T
        adapted = weight + delta
        magnitude = layer.lora_magnitude_vector[ADAPTER_NAME].weight.float()
        change = (magnitude / torch.linalg.norm(adapted, dim=1)).unsqueeze(1) * adapted - weight
        return float(change.double().square().sum())


def _lora_layers(model: Any) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def _is_target(shape: wire.LoraShape, name: str) -> bool:
    if isinstance(shape.target_modules, str):
        return re.fullmatch(shape.target_modules, name) is not None
    wanted = shape.layers_to_transform is None or layer_of(name) in shape.layers_to_transform
    return wanted and any(_ends_with(name, target) for target in shape.target_modules)


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
