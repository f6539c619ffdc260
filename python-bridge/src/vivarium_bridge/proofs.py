"""Proofs after training: plain PEFT loads what was saved, it does something, and merging it does the same."""

import gc
from pathlib import Path
from typing import Any, TypedDict

from .adapter import adapter_norm
from .errors import BridgeError
from .models import load_base

PROOF_TOKENS = 256
"""Positions that are compared: enough to see an effect, and 152k logits each must fit into memory."""
FLOAT32_BYTES = 4


class Proofs(TypedDict):
    """The fields of ``TrainResult`` of the same names. Logits in nats, norms unitless."""

    adapter_norm: float
    max_abs_dlogit_vs_base: float
    max_abs_dlogit_vs_memory: float
    max_abs_dlogit_merged: float


def prove(model: Any, base_model_dir: str, checkpoint: Path, ids: list[int], dtype: Any) -> Proofs:
    """Reload base and adapter as anybody would and compare logits on one training row.

    All is computed in float32, from weights rounded to the dtype of training; on a GPU that cannot hold the float32
    weights, on the CPU.

    Args:
        model: The trained PEFT model, last used here: it is taken apart to free its memory.
        base_model_dir: Where it came from.
        checkpoint: The folder to reload.
        ids: ``[T]`` token ids.
        dtype: Of the frozen base while training.

    Raises:
        BridgeError: ``NON_FINITE_LOSS`` if a logit is not finite.
    """
    import torch
    from peft import PeftModel

    device = _proof_device(model)
    trained = _logits(model.to(device).float().eval(), ids)
    del model
    gc.collect()
    torch.cuda.empty_cache()
    base = load_base(base_model_dir, dtype, device).float()
    plain = _logits(base, ids)
    reloaded = PeftModel.from_pretrained(base, str(checkpoint)).float().eval()
    adapted = _logits(reloaded, ids)
    norm = adapter_norm(reloaded)
    merged = _logits(reloaded.merge_and_unload(), ids)
    return Proofs(
        adapter_norm=norm,
        max_abs_dlogit_vs_base=_max_difference(adapted, plain),
        max_abs_dlogit_vs_memory=_max_difference(adapted, trained),
        max_abs_dlogit_merged=_max_difference(merged, adapted),
    )


def _proof_device(model: Any) -> Any:
    """The model's own device, if the weights fit there in float32 with a tenth to spare."""
    import torch

    if model.device.type != "cuda":
        return model.device
    needed = 1.1 * FLOAT32_BYTES * sum(parameter.numel() for parameter in model.parameters())
    total = torch.cuda.get_device_properties(model.device).total_memory
    return model.device if needed < total else torch.device("cpu")


def _logits(model: Any, ids: list[int]) -> Any:
    """``[T, V]`` logits in nats, in float32 on the CPU."""
    import torch

    with torch.inference_mode():
        tokens = torch.tensor([ids[:PROOF_TOKENS]], device=model.device)
        return model(input_ids=tokens, use_cache=False).logits[0].float().cpu()


def _max_difference(a: Any, b: Any) -> float:
    value = (a - b).abs().max().item()
    if value != value or value == float("inf"):
        raise BridgeError("NON_FINITE_LOSS", "the saved adapter gives logits that are not finite")
    return value
