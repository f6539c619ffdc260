"""The model in two halves: below the lowest trained layer nothing needs a gradient."""

import copy
from typing import Any

MAX_REL_DIFF = {"float32": 1e-5, "bfloat16": 2e-2}
"""Largest difference of a logit between the halves and the whole, over the largest logit, by dtype.

The halves round like the whole, but rows that enter one by one meet matrix products of other shapes. In float32 that
was seen to move hidden states by 3e-7, so 1e-5 leaves room for depth; a wrong mask or position moves logits by 1e-1.
bfloat16 has 8 significant bits: 2e-2 is five units in the last place of the largest logit.
"""


def causal_model(model: Any) -> Any:
    """The transformers model, without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder_layers(causal: Any) -> Any:
    """The decoder's layers as a ModuleList, or None if the decoder is not laid out as Llama's is."""
    import torch

    decoder = causal.get_decoder()
    layers = getattr(decoder, "layers", None)
    return layers if isinstance(layers, torch.nn.ModuleList) and hasattr(decoder, "norm") else None


def split_layer(model: Any) -> int:
    """The lowest layer with a trained parameter; 0, that is no split, where the layers below could change.

    They could if something outside the layers is trained, or if the config has dropout: its random numbers would be
    drawn in another order than by the whole model, and must be drawn anew for every pass.
    """
    import torch

    causal = causal_model(model)
    layers = decoder_layers(causal)
    if layers is None:
        return 0
    layer_of = {id(p): index for index, layer in enumerate(layers) for p in layer.parameters()}
    trained = [layer_of.get(id(p), 0) for p in model.parameters() if p.requires_grad]
    lowest = min(trained, default=0)
    if getattr(causal.config, "attention_dropout", 0.0):
        return 0
    below = [causal.get_input_embeddings(), *layers[:lowest]]
    drops = any(isinstance(module, torch.nn.Dropout) and module.p for part in below for module in part.modules())
    return 0 if drops else lowest


class Split:
    """Two views of a decoder that share its modules and go through its own forward.

    Nothing is copied or reimplemented: masks, rotary embeddings and kernels are those of the model, and gradients are
    bit for bit those of the whole model.
    """

    def __init__(self, causal: Any, layer: int) -> None:
        import torch

        decoder = causal.get_decoder()
        self.layer = layer
        self._decoder = decoder
        self._lower = _view(decoder, 0, layer)
        self._lower.norm = torch.nn.Identity()
        self._upper = _view(decoder, layer, len(decoder.layers))

    def lower(self, ids: Any, **inputs: Any) -> Any:
        """Hidden states that enter the split, without gradient.

        Args:
            ids: ``[B, T]`` token ids.
            **inputs: ``attention_mask`` or ``position_ids``; neither for rows without padding.

        Returns:
            ``[B, T, H]`` in the dtype of the residual stream.
        """
        import torch

        with torch.no_grad():
            return self._run(self._lower, input_ids=ids, **inputs)

    def upper(self, hidden: Any, **inputs: Any) -> Any:
        """Hidden states after the final norm: ``[B, T, H]`` from ``[B, T, H]``, with the inputs of ``lower``."""
        return self._run(self._upper, inputs_embeds=hidden, **inputs)

    def _run(self, view: Any, **inputs: Any) -> Any:
        view.training = self._decoder.training  # only the view's own flag: the layers are shared
        return view(use_cache=False, **inputs).last_hidden_state


def _view(decoder: Any, start: int, stop: int) -> Any:
    """A shallow copy of a decoder with the layers ``[start, stop)``."""
    import torch

    view = copy.copy(decoder)
    view._modules = dict(decoder._modules)  # the copy shares its dictionaries, and gets other modules
    view.layers = torch.nn.ModuleList(decoder.layers[start:stop])
    config = copy.deepcopy(decoder.config)
    config.num_hidden_layers = stop - start
    if getattr(config, "layer_types", None):
        config.layer_types = list(decoder.config.layer_types[start:stop])
    config._attn_implementation = decoder.config._attn_implementation
    view.config = config
    if hasattr(view, "has_sliding_layers"):  # fixed when the model was built
        view.has_sliding_layers = "sliding_attention" in config.layer_types
    return view
