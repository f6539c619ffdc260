"""Which way the losses of a run are computed: the fastest that this model is seen to reproduce."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import _wire as wire
from .fitting import mode
from .forward import Forward, SplitForward, WholeForward
from .masking import TokenRow
from .models import is_4bit_model
from .prefix_cache import PrefixCache, PrefixSpace
from .split import MAX_REL_DIFF, Split, causal_model, decoder_layers, split_layer


@dataclass(frozen=True, slots=True)
class Choice:
    """A way to compute.

    Attributes:
        forward: What computes the losses.
        split_layer: 0 without a split.
        max_rel_diff: Of logits against the whole model, over the largest logit; None without a split.
        has_cache: Whether prefixes are kept.
        batching: As asked for, or ``by_length`` where the model cannot tell packed rows apart.
    """

    forward: Forward
    split_layer: int
    max_rel_diff: float | None
    has_cache: bool
    batching: str


def choose_forward(
    model: Any,
    rows: list[TokenRow],
    training: wire.TrainingArguments,
    cache: PrefixCache | None,
    info: Callable[[str], None],
) -> Choice:
    """Test what a model can do, and fall back to its own forward where it cannot.

    Args:
        model: A PEFT or transformers model. Its weights and modes stay as they are.
        rows: Those that are trained on.
        training: ``batching``.
        cache: Where prefixes are kept, if they are.
        info: Told what is not used, and why.
    """
    sample = _sample(rows)
    limit = MAX_REL_DIFF.get(str(model.dtype).removeprefix("torch."), MAX_REL_DIFF["float32"])
    whole = WholeForward(model)
    batching = training.batching
    if batching == "packed" and not (difference := compare(model, whole, sample, True)) <= limit:
        info(f"rows are not packed: this model mixes them, logits differ by {difference:.1e} of the largest")
        batching = "by_length"
    layer = split_layer(model)
    split = Split(causal_model(model), layer) if layer > 0 else None
    prefixes = _space(model, split, cache) if split is not None and cache is not None else None
    if decoder_layers(causal_model(model)) is not None:
        forward = SplitForward(model, split, prefixes)
        difference = compare(model, forward, sample, batching == "packed")
        if difference <= limit:
            return Choice(forward, layer, difference if layer > 0 else None, prefixes is not None, batching)
        info(f"the model is not split: logits differ by {difference:.1e} of the largest, expected at most {limit:.0e}")
    return Choice(whole, 0, None, False, batching)


def compare(model: Any, forward: Forward, rows: list[TokenRow], is_packed: bool) -> float:
    """Largest difference of a logit at a target from those of the whole model on padded rows, over the largest logit.

    Computed in evaluation mode, so that no random number is drawn.
    """
    import torch

    with torch.no_grad(), mode(model, is_training=False):
        wanted = WholeForward(model).target_logits(rows, False).float()
        found = forward.target_logits(rows, is_packed).float()
        return ((found - wanted).abs().max() / wanted.abs().max()).item()


def _sample(rows: list[TokenRow]) -> list[TokenRow]:
    """The shortest row and the next longer one, so that there is padding and little to compute."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    longer = next((row for row in ordered if len(row.ids) > len(ordered[0].ids)), ordered[-1])
    return [longer, ordered[0]]


def _space(model: Any, split: Split, cache: PrefixCache) -> PrefixSpace:
    """The part of the cache for this model and split."""
    import torch

    hidden = split.lower(torch.tensor([[0]], device=model.device))
    return cache.space(space_identity(model, split.layer), hidden.dtype, hidden.shape[-1])


def space_identity(model: Any, split_layer: int) -> dict[str, Any]:
    """All that the bits of hidden states depend on, beside the base and the row, as JSON.

    Args:
        model: A PEFT or transformers model.
        split_layer: The layer that they enter.
    """
    import torch
    import transformers

    causal = causal_model(model)
    quantisation = getattr(causal.config, "quantization_config", None)
    return {
        "split_layer": split_layer,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "attention": causal.config._attn_implementation,
        "quantisation": None if quantisation is None else str(quantisation),
        "bitsandbytes": version("bitsandbytes") if is_4bit_model(causal) else None,
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else _cpu_name(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def _cpu_name() -> str:
    """Model, instruction set and threads: libraries pick kernels by the first two, and all change the order of sums."""
    import torch

    return f"cpu {cpu_model()} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name. Source: proc_cpuinfo(5), ``model name``; elsewhere, and on ARM, what Python knows of it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor()
