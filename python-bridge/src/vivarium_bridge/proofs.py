"""Proofs after training: plain PEFT loads what was saved, it does something, and merging it does the same."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .adapter import adapter_norm, unload
from .errors import BridgeError
from .models import is_4bit_model, load_base
from .precision import Precision

PROOF_TOKENS = 256
"""Positions that are compared: enough to see an effect, and 152k logits each must fit into memory."""
MAX_RELOADED_DIFFERENCE = 1e-4
"""Of the largest logit. The same weights in the same order of operations differ by nothing, in another by 1e-6."""
MAX_MERGED_DIFFERENCE = 1e-3
"""Of the largest logit. Merging adds the products before the multiplication instead of after it."""
MAX_RELOADED_DIFFERENCE_ROUNDED = 2e-2
"""The same for what is computed as it was trained, in bfloat16 (8 bits of mantissa): 4-bit bases, short memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """The fields of ``RunResult`` of the same names. Logits in nats, norms unitless.

    Attributes:
        in_float32: Whether they were computed in float32, and not in the dtype of training.
    """

    in_float32: bool
    adapter_norm: float
    max_abs_dlogit_vs_base: float
    max_abs_dlogit_vs_memory: float
    max_abs_dlogit_merged: float | None
    max_abs_logit: float

    def measured(self) -> dict[str, Any]:
        """The fields that ``RunResult`` has."""
        return {name: value for name, value in asdict(self).items() if name != "in_float32"}


def prove_adapter(model: Any, checkpoint: Path, ids: list[int], precision: Precision) -> tuple[Proofs, Any]:
    """Reload the adapter as anybody would and compare logits on one training row.

    All is computed in float32, from weights rounded to the dtype of training, where there is memory for that. A 4-bit
    base stays as it is. Into it, and into one that is not in float32, nothing is merged: that would round.

    Args:
        model: The trained PEFT model, last used here: it is taken apart.
        checkpoint: The folder to reload.
        ids: ``[T]`` token ids.
        precision: Finds the memory.

    Returns:
        The proofs, and the base with its own weights, bit for bit.

    Raises:
        BridgeError: ``NON_FINITE_LOSS`` if a logit is not finite.
    """
    from peft import PeftModel

    def trained_and_plain() -> tuple[Any, Any]:
        trained = _logits(model, ids)
        with model.disable_adapter():
            return trained, _logits(model, ids)

    model.eval()
    is_4bit = is_4bit_model(model.get_base_model())
    trained, plain = trained_and_plain() if is_4bit else precision.compute(model.get_base_model(), trained_and_plain)
    base = unload(model)
    reloaded: Any = PeftModel.from_pretrained(base, str(checkpoint)).eval()
    adapted = _logits(reloaded, ids)
    norm = adapter_norm(reloaded)
    merged = None
    if precision.in_float32:
        merged = precision.compute_if_it_fits(lambda: _merged_logits(reloaded, ids), "merging")
    proofs = Proofs(
        in_float32=precision.in_float32,
        adapter_norm=norm,
        max_abs_dlogit_vs_base=_max_difference(adapted, plain),
        max_abs_dlogit_vs_memory=_max_difference(adapted, trained),
        max_abs_dlogit_merged=None if merged is None else _max_difference(merged, adapted),
        max_abs_logit=trained.abs().max().item(),
    )
    base = unload(reloaded)
    if not is_4bit:
        precision.restore()
    return proofs, base


def prove_model(model: Any, base_model_dir: str, checkpoint: Path, ids: list[int], precision: Precision) -> Proofs:
    """The same for a model of which all weights were trained. Only one more model is held at a time.

    Args:
        model: The trained model; its weights are given away.
        base_model_dir: What it was before.
        checkpoint: The folder to reload.
        ids: ``[T]`` token ids.
        precision: Finds the memory.

    Raises:
        BridgeError: ``NON_FINITE_LOSS`` if a logit is not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = model.dtype
    trained = precision.compute(model.eval(), lambda: _logits(model, ids), keeps_weights=True)
    device = model.device
    model.to("meta")  # gives the memory back, whoever else still holds the model
    reloaded: Any = AutoModelForCausalLM.from_pretrained(str(checkpoint), dtype=dtype, local_files_only=True)
    adapted = _logits(_like_trained(reloaded.to(device).eval(), precision), ids)
    saved = {name: weight.detach().to("cpu", dtype) for name, weight in reloaded.named_parameters()}
    del reloaded
    base = _like_trained(load_base(base_model_dir, dtype, device), precision)
    plain = _logits(base, ids)
    with torch.no_grad():
        changes = [
            (saved[name].float() - weight.cpu().float()).double().square().sum()
            for name, weight in base.named_parameters()
        ]
    return Proofs(
        in_float32=precision.in_float32,
        adapter_norm=float(torch.stack(changes).sum().sqrt()),
        max_abs_dlogit_vs_base=_max_difference(adapted, plain),
        max_abs_dlogit_vs_memory=_max_difference(adapted, trained),
        max_abs_dlogit_merged=None,
        max_abs_logit=trained.abs().max().item(),
    )


def _like_trained(model: Any, precision: Precision) -> Any:
    return model.float() if precision.in_float32 else model


def check_proofs(proofs: Proofs, *, was_moved: bool) -> None:
    """Refuse a result that is not what was trained.

    Args:
        proofs: From ``prove_adapter`` or ``prove_model``.
        was_moved: Whether a step with a learning rate above 0 was made.

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
    limit = MAX_RELOADED_DIFFERENCE if proofs.in_float32 else MAX_RELOADED_DIFFERENCE_ROUNDED
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


def _merged_logits(model: Any, ids: list[int]) -> Any:
    """Logits with every adapted layer merged while it computes."""
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_merged_in_forward(layer))
        return _logits(model, ids)


@contextmanager
def _merged_in_forward(layer: Any) -> Iterator[None]:
    """Merge a layer when it is called, for as long as it computes: all copies at once are as large as the model.

    Its weight is then the one that it was: to subtract what was added would round.
    """
    weight = layer.get_base_layer().weight
    own = weight.data

    def merge(*_: Any) -> None:
        weight.data = own.clone()
        layer.merge()

    def take_back(*_: Any) -> None:
        weight.data = own
        layer.merged_adapters.clear()

    hooks = [layer.register_forward_pre_hook(merge), layer.register_forward_hook(take_back)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        take_back()


def _logits(model: Any, ids: list[int]) -> Any:
    """``[T, V]`` logits in nats, in float32 on the CPU."""
    import torch

    with torch.no_grad():  # not in inference mode: its tensors may not become weights
        tokens = torch.tensor([ids[:PROOF_TOKENS]], device=model.device)
        return model(input_ids=tokens, use_cache=False).logits[0].float().cpu()


def _max_difference(a: Any, b: Any) -> float:
    value = (a - b).abs().max().item()
    if value != value or value == float("inf"):
        raise BridgeError(
            "NON_FINITE_LOSS", "the saved adapter gives logits that are not finite: expected finite numbers"
        )
    return value
