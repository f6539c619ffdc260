"""The output layer and its losses. Where it is frozen, no ``[targets, vocabulary]`` tensor outlives a chunk."""

from typing import Any

import torch
from torch.nn import functional

CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**29}
"""Size of the float32 logits of a chunk. A GPU reads the whole output matrix once a chunk, so that it needs some
hundred positions in each to be bound by arithmetic: 512 MiB are 883 positions of 152k logits. A CPU is faster while a
chunk stays near its caches."""
FLOAT32_BYTES = 4


class Head:
    """``lm_head`` on chosen positions.

    A frozen plain linear layer is differentiated by hand, chunk by chunk: only hidden states get a gradient,
    ``(softmax - one_hot) @ W``. Anything else, such as a trained or adapted output layer, is left to autograd.
    """

    def __init__(self, causal: Any) -> None:
        self._module = causal.get_output_embeddings()
        self.is_chunked = type(self._module) is torch.nn.Linear and not any(
            p.requires_grad for p in self._module.parameters()
        )

    def cross_entropy(self, hidden: Any, labels: Any) -> Any:
        """Sum of cross entropies in nats, the softmax in float32: ``[]`` from ``[N, H]`` and labels ``[N]``."""
        if self.is_chunked:
            return _ChunkedCrossEntropy.apply(hidden, labels, self._module.weight, self._module.bias)
        return functional.cross_entropy(self._module(hidden).float(), labels, reduction="sum")

    def reference(self, hidden: Any) -> Any:
        """What ``kl_divergence`` compares with, from the hidden states ``[N, H]`` of the frozen model."""
        return hidden if self.is_chunked else self._module(hidden).float()

    def kl_divergence(self, hidden: Any, reference: Any) -> Any:
        """Sum over positions of KL(reference || model) in nats: ``[]`` from hidden states ``[N, H]``."""
        if self.is_chunked:
            return _ChunkedKl.apply(hidden, reference, self._module.weight, self._module.bias)
        return kl_of_logits(self._module(hidden).float(), reference)


def kl_of_logits(logits: Any, reference: Any) -> Any:
    """Sum over positions of KL(reference || model) in nats: ``[]`` from float32 logits ``[N, V]``."""
    return functional.kl_div(
        functional.log_softmax(logits, dim=-1),
        functional.log_softmax(reference, dim=-1),
        log_target=True,
        reduction="sum",
    )


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross entropies; the gradient is made on the way forward, while the logits of a chunk are there."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, labels: Any, weight: Any, bias: Any) -> Any:
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for part in _chunks(hidden, weight):
            logits = _logits(hidden[part], weight, bias)
            logits -= logits.amax(dim=1, keepdim=True)
            wanted = labels[part].unsqueeze(1)
            chosen = logits.gather(1, wanted)
            sums = logits.exp_().sum(dim=1, keepdim=True)
            total += (sums.log() - chosen).sum(dtype=torch.float64)
            if gradient is not None:
                logits /= sums
                logits.scatter_add_(1, wanted, logits.new_full(wanted.shape, -1.0))
                gradient[part] = logits.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total.to(_loss_dtype(hidden))

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None


class _ChunkedKl(torch.autograd.Function):
    """Sum of KL(reference || model) over positions; ``d/d logits = softmax(model) - softmax(reference)``."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, reference: Any, weight: Any, bias: Any) -> Any:
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for part in _chunks(hidden, weight):
            wanted = _logits(reference[part], weight, bias).log_softmax(dim=1)
            found = _logits(hidden[part], weight, bias).log_softmax(dim=1)
            total += functional.kl_div(found, wanted, log_target=True, reduction="sum").double()
            if gradient is not None:
                gradient[part] = found.exp_().sub_(wanted.exp_()).to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total.to(_loss_dtype(hidden))

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None


def _chunks(hidden: Any, weight: Any) -> list[slice]:
    budget = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cpu"])
    size = max(1, budget // (FLOAT32_BYTES * weight.shape[0]))
    return [slice(start, start + size) for start in range(0, hidden.shape[0], size)]


def _logits(hidden: Any, weight: Any, bias: Any) -> Any:
    logits = functional.linear(hidden, weight, bias)
    return logits.to(_loss_dtype(hidden))


def _loss_dtype(hidden: Any) -> Any:
    """float32, or float64 for a model in float64."""
    return torch.promote_types(hidden.dtype, torch.float32)
