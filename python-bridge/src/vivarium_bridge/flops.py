"""Floating-point operations of what was computed, against what the device can do."""

import re
from dataclasses import dataclass
from typing import Any

PEAK_BF16_FLOPS = {
    r"A100\b": 312e12,
    r"H100 PCIe": 756e12,
    r"H[12]00 NVL": 835e12,
    r"H[12]00\b": 989e12,
    r"L40S\b": 362e12,
    r"RTX 4090$": 165e12,
    r"RTX 3090$": 71e12,
}
"""Dense bfloat16 operations a second with float32 accumulation, by an expression for the device's name; the first that
fits. Laptop versions and slices of a GPU (MIG) are others and not known.

Source: NVIDIA's data sheets of each; for the two RTX cards the appendices of the Ada and Ampere GA102 whitepapers.
"""


def peak_flops(device: Any, dtype: Any) -> float | None:
    """Peak of a known GPU in bfloat16; None for any other device or dtype, since a guess would look measured."""
    import torch

    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Peak of a GPU by the name that its driver gives it."""
    if " MIG " in name:
        return None
    return next((peak for part, peak in PEAK_BF16_FLOPS.items() if re.search(rf"\b{part}", name)), None)


@dataclass(slots=True)
class Work:
    """What was computed, counted where it is computed. Padding is not work.

    Tokens of rows below and above the split; pairs are those of positions that attend to each other,
    ``T (T + 1) / 2`` a row. Head positions are those on which the output layer ran.
    """

    below_tokens: int = 0
    below_pairs: int = 0
    above_tokens: int = 0
    above_pairs: int = 0
    backward_tokens: int = 0
    backward_pairs: int = 0
    head_forward: int = 0
    head_backward: int = 0

    def below(self, lengths: list[int]) -> None:
        """A forward pass below the split, of rows of so many tokens."""
        self.below_tokens += sum(lengths)
        self.below_pairs += _pairs(lengths)

    def above(self, lengths: list[int], with_gradient: bool) -> None:
        """A forward pass above the split, and the backward pass that follows it."""
        self.above_tokens += sum(lengths)
        self.above_pairs += _pairs(lengths)
        if with_gradient:
            self.backward_tokens += sum(lengths)
            self.backward_pairs += _pairs(lengths)

    def head(self, positions: int, with_gradient: bool) -> None:
        """The output layer on so many positions."""
        self.head_forward += positions
        self.head_backward += positions if with_gradient else 0


def _pairs(lengths: list[int]) -> int:
    return sum(length * (length + 1) // 2 for length in lengths)


@dataclass(frozen=True, slots=True)
class Costs:
    """Sizes that turn work into operations: numbers of weights in matrices, and the width of attention."""

    below: int
    above: int
    backward: int
    trained: int
    head: int
    layers_below: int
    layers_above: int
    layers_backward: int
    attention_width: int

    def flops(self, work: Work) -> float:
        """Operations of some work.

        A matrix of N weights takes 2N a token forward (one multiplication, one addition each), 2N for the gradient of
        its input and, if it is trained, 2N for its own. Attention takes ``4 d`` a pair of positions and layer forward
        (scores and weighted sum, d being heads times head width) and twice that backward.

        The lowest trained layer counts forward only: how much of its backward pass runs depends on which of its
        matrices are trained. What gradient checkpointing computes again does not count. Both err on the low side.
        """
        matrices = (
            self.below * work.below_tokens
            + self.above * work.above_tokens
            + (self.backward + self.trained) * work.backward_tokens
            + self.head * (work.head_forward + work.head_backward)
        )
        forward_pairs = self.layers_below * work.below_pairs + self.layers_above * work.above_pairs
        attention = 2 * forward_pairs + 4 * self.layers_backward * work.backward_pairs
        return 2.0 * (matrices + self.attention_width * attention)


def costs_of(causal: Any, layers: Any, split_layer: int) -> Costs:
    """Measure a model.

    Args:
        causal: The transformers model.
        layers: Its decoder layers.
        split_layer: Where it is split; 0 if it is not.
    """
    config = causal.config
    sizes = [_matrix_weights(layer) for layer in layers]
    above = len(sizes) - split_layer
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Costs(
        below=sum(sizes[:split_layer]),
        above=sum(sizes[split_layer:]),
        backward=sum(sizes[split_layer + 1 :]),
        trained=sum(p.numel() for layer in layers for p in layer.parameters() if p.requires_grad),
        head=config.vocab_size * config.hidden_size,
        layers_below=split_layer,
        layers_above=above,
        layers_backward=max(above - 1, 0),
        attention_width=config.num_attention_heads * head_width,
    )


def _matrix_weights(module: Any) -> int:
    """By shape, not by storage: a 4-bit matrix stores two weights a byte."""
    import torch

    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, torch.nn.Linear))
