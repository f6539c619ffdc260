"""Proofs after training: plain PEFT loads what was saved, it does something, and merging it does the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .adapter import adapter_norm, unload
from .errors import BridgeError
from .models import load_base

PROOF_TOKENS = 256
"""Positions that are compared: enough to see an effect, and 152k logits each must fit into memory."""
FLOAT32_BYTES = 4
MAX_RELOADED_DIFFERENCE = 1e-4
"""Of the largest logit. The same weights in the same order of operations differ by nothing, in another by 1e-6."""
MAX_MERGED_DIFFERENCE = 1e-3
"""Of the largest logit. Merging adds the products before the multiplication instead of after it."""
MAX_RELOADED_DIFFERENCE_4BIT = 2e-2
"""The same for a 4-bit base, which computes in bfloat16 (8 bits of mantissa)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """The fields of ``RunResult`` of the same names. Logits in nats, norms unitless."""

    adapter_norm: float
    max_abs_dlogit_vs_base: float
    max_abs_dlogit_vs_memory: float
    max_abs_dlogit_merged: float | None
    max_abs_logit: float


def prove_adapter(model: Any, checkpoint: Path, ids: list[int]) -> tuple[Proofs, Any]:
    """Reload the adapter as anybody would and compare logits on one training row.

    All is computed in float32, from weights rounded to the dtype of training; on a GPU that cannot hold the float32
    weights, on the CPU. A 4-bit base stays as it is, and nothing is merged into it.

    Args:
        model: The trained PEFT model, last used here: it is taken apart.
        checkpoint: The folder to reload.
        ids: ``[T]`` token ids.

    Returns:
        The proofs, and the base with its own weights, bit for bit.

    Raises:
        BridgeError: ``NON_FINITE_LOSS`` if a logit is not finite.
    """
    from peft import PeftModel

    model.eval()
    is_4bit = is_4bit_model(model.get_base_model())
    with _in_float32(model.get_base_model(), is_4bit=is_4bit) as dtypes:
        trained = _logits(model, ids)
        with model.disable_adapter():
            plain = _logits(model, ids)
        base = unload(model)
        reloaded: Any = PeftModel.from_pretrained(base, str(checkpoint)).eval()
        adapted = _logits(reloaded, ids)
        norm = adapter_norm(reloaded)
        merged = None if is_4bit else _merged_logits(reloaded, ids, dtypes)
        base = unload(reloaded)
    proofs = Proofs(
        adapter_norm=norm,
        max_abs_dlogit_vs_base=_max_difference(adapted, plain),
        max_abs_dlogit_vs_memory=_max_difference(adapted, trained),
        max_abs_dlogit_merged=None if merged is None else _max_difference(merged, adapted),
        max_abs_logit=trained.abs().max().item(),
    )
    return proofs, base


def prove_model(model: Any, base_model_dir: str, checkpoint: Path, ids: list[int]) -> Proofs:
    """The same for a model of which all weights were trained. Only one more model is held at a time.

    Args:
        model: The trained model; its weights are given away.
        base_model_dir: What it was before.
        checkpoint: The folder to reload.
        ids: ``[T]`` token ids.

    Raises:
        BridgeError: ``NON_FINITE_LOSS`` if a logit is not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = model.dtype
    with _in_float32(model.eval(), is_4bit=False):
        device = model.device
        trained = _logits(model, ids)
    model.to("meta")  # gives the memory back, whoever else still holds the model
    reloaded: Any = AutoModelForCausalLM.from_pretrained(str(checkpoint), dtype=dtype, local_files_only=True)
    adapted = _logits(reloaded.to(device).float().eval(), ids)
    saved = {name: weight.detach().cpu() for name, weight in reloaded.named_parameters()}
    del reloaded
    base = load_base(base_model_dir, dtype, device).float()
    plain = _logits(base, ids)
    with torch.no_grad():
        changes = [(saved[name] - weight.cpu()).double().square().sum() for name, weight in base.named_parameters()]
    return Proofs(
        adapter_norm=float(torch.stack(changes).sum().sqrt()),
        max_abs_dlogit_vs_base=_max_difference(adapted, plain),
        max_abs_dlogit_vs_memory=_max_difference(adapted, trained),
        max_abs_dlogit_merged=None,
        max_abs_logit=trained.abs().max().item(),
    )


def check_proofs(proofs: Proofs, *, was_moved: bool, is_4bit: bool) -> None:
    """Refuse a result that is not what was trained.

    Args:
        proofs: From ``prove_adapter`` or ``prove_model``.
        was_moved: Whether a step with a learning rate above 0 was made.
        is_4bit: Whether the base is quantised.

    Raises:
        BridgeError: ``INTERNAL`` naming what was expected and found.
    """
    hint = "Nobody should use this run: report it, and train again in a new folder."
    if was_moved and (proofs.adapter_norm == 0 or proofs.max_abs_dlogit_vs_base == 0):
        raise BridgeError(
            "INTERNAL",
            "training changed nothing: expected a norm of the change and an effect on the logits above 0,"
            f" got {proofs.adapter_norm:g} and {proofs.max_abs_dlogit_vs_base:g}",
            "Raise learning_rate: in bfloat16 a step below 1/256 of a weight is rounded away.",
        )
    limit = MAX_RELOADED_DIFFERENCE_4BIT if is_4bit else MAX_RELOADED_DIFFERENCE
    differences = [
        ("the last checkpoint, reloaded,", proofs.max_abs_dlogit_vs_memory, limit),
        ("the merged model", proofs.max_abs_dlogit_merged, MAX_MERGED_DIFFERENCE),
    ]
    for what, found, part in differences:
        if found is not None and found > part * proofs.max_abs_logit:
            raise BridgeError(
                "INTERNAL",
                f"{what} is not the model that was trained: expected logits within {part:g} of the largest,"
                f" {proofs.max_abs_logit:g}, got {found:g} off",
                hint,
            )


def is_4bit_model(model: Any) -> bool:
    """Whether the weights are quantised."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


@contextmanager
def _in_float32(model: Any, *, is_4bit: bool) -> Iterator[dict[Any, Any]]:
    """Hold a model in float32, in place, and afterwards in what it was: from bfloat16 and back no bit is lost.

    Yields:
        The dtype that each parameter had.
    """
    import torch

    dtypes = {parameter: parameter.dtype for parameter in model.parameters()}
    if is_4bit:
        yield dtypes
        return
    device = model.device
    model.to(_proof_device(model))
    for parameter, dtype in dtypes.items():
        if dtype.is_floating_point:
            parameter.data = parameter.data.to(torch.float32)
    yield dtypes
    for parameter, dtype in dtypes.items():
        parameter.data = parameter.data.to(dtype)
    model.to(device)


def _proof_device(model: Any) -> Any:
    """The model's own device, if the weights fit there in float32 with a tenth to spare."""
    import torch

    if model.device.type != "cuda":
        return model.device
    needed = 1.1 * FLOAT32_BYTES * sum(parameter.numel() for parameter in model.parameters())
    total = torch.cuda.get_device_properties(model.device).total_memory
    return model.device if needed < total else torch.device("cpu")


def _merged_logits(model: Any, ids: list[int], dtypes: dict[Any, Any]) -> Any:
    """Logits after merging. The weights of the base are put back from copies: subtracting again would round."""
    import torch
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    copies = [weight.detach().to("cpu", dtypes[weight], copy=True) for weight in weights]
    model.merge_adapter()
    merged = _logits(model, ids)
    with torch.no_grad():
        for weight, copy in zip(weights, copies, strict=True):
            weight.copy_(copy)
    return merged


def _logits(model: Any, ids: list[int]) -> Any:
    """``[T, V]`` logits in nats, in float32 on the CPU."""
    import torch

    with torch.inference_mode():
        tokens = torch.tensor([ids[:PROOF_TOKENS]], device=model.device)
        return model(input_ids=tokens, use_cache=False).logits[0].float().cpu()


def _max_difference(a: Any, b: Any) -> float:
    value = (a - b).abs().max().item()
    if value != value or value == float("inf"):
        raise BridgeError(
            "NON_FINITE_LOSS", "the saved adapter gives logits that are not finite: expected finite numbers"
        )
    return value
