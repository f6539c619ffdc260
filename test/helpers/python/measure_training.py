"""What one micro-batch really takes: bytes that autograd keeps, floating-point operations, the adapter's file.

Reads JSON cases from stdin and writes a list of measurements. A case has a config of Qwen2 or Qwen3 (random weights), a
LoRA shape or null, a dtype, and rows as [tokens, targets].
"""

import json
import sys
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from vivarium_bridge.fitting import set_checkpointing
from vivarium_bridge.forward import SplitForward
from vivarium_bridge.masking import TokenRow
from vivarium_bridge.split import Split, causal_model, decoder_layers, split_layer


def build(case: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**case["config"])
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, case["dtype"]))
    if case["lora"] is None:
        return model.train()
    model.requires_grad_(False)
    return get_peft_model(model, LoraConfig(**case["lora"], task_type="CAUSAL_LM", bias="none")).train()


def saved_bytes(model: Any, forward: Any, rows: list[TokenRow]) -> int:
    """Bytes of the storages that a backward pass needs, each once, without the model's own."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward.target_loss(rows, False)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    loss.backward()
    return total


def counted_flops(forward: Any, rows: list[TokenRow]) -> dict[str, float]:
    counter = FlopCounterMode(display=False)
    with counter:
        loss = forward.target_loss(rows, False)
    ahead = counter.get_total_flops()
    counter = FlopCounterMode(display=False)
    with counter:
        loss.backward()
    return {"forward": ahead, "backward": counter.get_total_flops()}


def measure(case: dict[str, Any]) -> dict[str, Any]:
    model = build(case)
    rows = [
        TokenRow(ids=list(range(1, tokens + 1)), targets=[index >= tokens - targets for index in range(tokens)])
        for tokens, targets in case["rows"]
    ]
    layer = split_layer(model)
    set_checkpointing(decoder_layers(causal_model(model)), layer, case["gradient_checkpointing"])
    split = Split(causal_model(model), layer) if layer > 0 else None
    forward = SplitForward(model, split, None)
    file_bytes = None
    if case["lora"] is not None:
        weights = {name: t.detach().contiguous() for name, t in get_peft_model_state_dict(model).items()}
        file_bytes = len(save(weights, {"format": "pt"}))
    return {
        "saved_bytes": saved_bytes(model, forward, rows),
        "flops": None if case["gradient_checkpointing"] else counted_flops(forward, rows),
        "file_bytes": file_bytes,
    }


torch.set_num_threads(1)
json.dump([measure(case) for case in json.load(sys.stdin)], sys.stdout)
