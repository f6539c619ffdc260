"""Losses of a micro-batch: through the split and the output layer, or, where a model resists, through the whole."""

from contextlib import nullcontext
from typing import Any, Protocol

from .flops import Work
from .layout import Layout, packed, padded, row_positions, target_positions
from .masking import TokenRow
from .prefix_cache import PrefixSpace
from .split import Split, causal_model


class Forward(Protocol):
    """A way to compute the losses of some rows. All are sums in nats, ``[]``, to be divided by the caller."""

    work: Work

    def target_loss(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """Cross entropies of all target tokens."""
        ...

    def kl_divergence(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """KL(base || model) at every token of the rows, prompts included."""
        ...

    def target_logits(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """Logits of the positions that predict targets: ``[N, V]``, in the order of the rows."""
        ...


class WholeForward:
    """The model's own forward, for models that the split does not reproduce."""

    def __init__(self, model: Any) -> None:
        self.work = Work()
        self._model = model

    def target_loss(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """Cross entropies of all target tokens."""
        from torch.nn.functional import cross_entropy

        layout = lay_out(rows, is_packed, self._model.device)
        positions, labels = target_positions(rows, layout)
        return cross_entropy(self._logits(layout, positions).float(), labels, reduction="sum")

    def kl_divergence(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """KL(base || model) at every token of the rows, prompts included."""
        import torch

        from .head import kl_of_logits

        layout = lay_out(rows, is_packed, self._model.device)
        positions = row_positions(layout)
        with torch.no_grad(), base_only(self._model):
            reference = self._logits(layout, positions)
        return kl_of_logits(self._logits(layout, positions).float(), reference.float())

    def target_logits(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """Logits of the positions that predict targets: ``[N, V]``, in the order of the rows."""
        layout = lay_out(rows, is_packed, self._model.device)
        positions, _ = target_positions(rows, layout)
        return self._logits(layout, positions)

    def _logits(self, layout: Layout, positions: Any) -> Any:
        import torch

        logits = self._model(input_ids=layout.ids, use_cache=False, **layout.inputs).logits
        with_gradient = torch.is_grad_enabled()
        self.work.above(layout.lengths, with_gradient)
        self.work.head(layout.slots, with_gradient)
        return logits.flatten(0, 1).index_select(0, positions)


class SplitForward:
    """The decoder, split where layers are frozen, and the output layer only where its result is used."""

    def __init__(self, model: Any, split: Split | None, prefixes: PrefixSpace | None) -> None:
        from .head import Head

        self.work = Work()
        self._model = model
        self._decoder = causal_model(model).get_decoder()
        self._split = split
        self._prefixes = prefixes
        self._head = Head(causal_model(model))

    def target_loss(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """Cross entropies of all target tokens."""
        hidden, labels = self._at_targets(rows, is_packed)
        return self._head.cross_entropy(hidden, labels)

    def kl_divergence(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """KL(base || model) at every token of the rows, prompts included; below the split both are the same."""
        import torch

        layout = lay_out(rows, is_packed, self._model.device)
        entering = self._entering(rows, layout)
        positions = row_positions(layout)
        with torch.no_grad(), base_only(self._model):
            reference = self._head.reference(self._leaving(layout, entering, positions))
        return self._head.kl_divergence(self._leaving(layout, entering, positions), reference)

    def target_logits(self, rows: list[TokenRow], is_packed: bool) -> Any:
        """Logits of the positions that predict targets: ``[N, V]``, in the order of the rows."""
        hidden, _ = self._at_targets(rows, is_packed)
        return causal_model(self._model).get_output_embeddings()(hidden)

    def _at_targets(self, rows: list[TokenRow], is_packed: bool) -> tuple[Any, Any]:
        layout = lay_out(rows, is_packed, self._model.device)
        positions, labels = target_positions(rows, layout)
        return self._leaving(layout, self._entering(rows, layout), positions), labels

    def _entering(self, rows: list[TokenRow], layout: Layout) -> Any:
        """Hidden states ``[B, T, H]`` that enter the split, or None without one."""
        if self._split is None:
            return None
        if self._prefixes is None:
            self.work.below(layout.lengths)
            return self._split.lower(layout.ids, **layout.inputs)
        return self._assemble([self._row_prefix(row) for row in rows], layout)

    def _row_prefix(self, row: TokenRow) -> Any:
        """Hidden states ``[T, H]`` of a row that is computed alone, so that they depend on nothing else."""
        import torch

        if self._split is None or self._prefixes is None:
            raise AssertionError("a prefix without a split")
        known = self._prefixes.get(row.ids)
        if known is not None:
            return known
        self.work.below([len(row.ids)])
        hidden = self._split.lower(torch.tensor([row.ids], device=self._model.device))[0]
        self._prefixes.put(row.ids, hidden)
        return hidden

    def _assemble(self, prefixes: list[Any], layout: Layout) -> Any:
        """Put rows of hidden states ``[T, H]`` where their tokens are; padding is zero."""
        import torch

        places = torch.zeros(layout.slots, prefixes[0].shape[-1], dtype=prefixes[0].dtype, device=layout.ids.device)
        for start, prefix in zip(layout.starts, prefixes, strict=True):
            places[start : start + len(prefix)].copy_(prefix)
        return places.view(*layout.ids.shape, -1)

    def _leaving(self, layout: Layout, entering: Any, positions: Any) -> Any:
        """Hidden states ``[N, H]`` after the final norm, at the given positions."""
        import torch

        if self._split is None:
            hidden = self._decoder(input_ids=layout.ids, use_cache=False, **layout.inputs).last_hidden_state
        else:
            hidden = self._split.upper(entering, **layout.inputs)
        with_gradient = torch.is_grad_enabled()
        self.work.above(layout.lengths, with_gradient)
        self.work.head(len(positions), with_gradient)
        return hidden.flatten(0, 1).index_select(0, positions)


def lay_out(rows: list[TokenRow], is_packed: bool, device: Any) -> Layout:
    """Rows as the model takes them."""
    return packed(rows, device) if is_packed else padded(rows, device)


def base_only(model: Any) -> Any:
    """A context in which the adapter is switched off; a model without one is its own base."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
