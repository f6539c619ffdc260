"""The two halves of a model against the whole."""

import copy

import pytest
import tiny
import torch

from vivarium_bridge.choosing import choose_forward, compare
from vivarium_bridge.forward import SplitForward, WholeForward
from vivarium_bridge.split import Split, causal_model, split_layer

LORAS = {
    "one layer": {"layers_to_transform": [2]},
    "two layers": {"layers_to_transform": [1, 3], "r": 4},
    "attention too": {"layers_to_transform": [2, 3], "target_modules": ["q_proj", "v_proj", "up_proj"], "r": 4},
    "DoRA": {"layers_to_transform": [1], "use_dora": True},
}


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("lora", LORAS.values(), ids=LORAS)
def test_gradients_are_bit_for_bit_those_of_the_whole_model(kind, lora):
    model = tiny.adapted(tiny.causal_lm(kind), **lora).train()
    rows = tiny.token_rows(5)
    ids, mask, labels = tiny.plain_batch(rows)

    def backward(logits):
        flat = logits[:, :-1].reshape(-1, logits.shape[-1])
        torch.nn.functional.cross_entropy(flat, labels[:, 1:].reshape(-1), reduction="sum").backward()
        found = tiny.gradients(model)
        model.zero_grad()
        return found

    wanted = backward(model(input_ids=ids, attention_mask=mask).logits)
    split = Split(causal_model(model), split_layer(model))
    hidden = split.upper(split.lower(ids, attention_mask=mask), attention_mask=mask)
    found = backward(causal_model(model).lm_head(hidden))
    assert split.layer == min(lora["layers_to_transform"])
    assert found.keys() == wanted.keys() != set()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_model_is_left_as_it_was():
    model = tiny.adapted(tiny.causal_lm())
    decoder = causal_model(model).get_decoder()
    before, norm, config = list(decoder.layers), decoder.norm, copy.deepcopy(decoder.config)
    split = Split(causal_model(model), 2)
    split.upper(split.lower(torch.tensor([[1, 2, 3]])))
    assert (list(decoder.layers), decoder.norm, decoder.config.to_dict()) == (before, norm, config.to_dict())
    assert not any(layer.gradient_checkpointing for layer in before)


def test_nothing_below_the_split_is_differentiated():
    model = tiny.adapted(tiny.causal_lm()).train()
    split = Split(causal_model(model), 2)
    hidden = split.lower(torch.tensor([[1, 2, 3]]))
    assert not hidden.requires_grad
    assert split.upper(hidden).requires_grad


@pytest.mark.parametrize("layer", [1, 2])
def test_sliding_windows_are_split_with_their_layers(layer):
    """Layers with a window and without: each half has its own list of them."""
    model = tiny.causal_lm("qwen2", use_sliding_window=True, sliding_window=3, max_window_layers=2)
    assert set(model.config.layer_types) == {"full_attention", "sliding_attention"}
    model = tiny.adapted(model, layers_to_transform=[layer])
    assert compare(model, SplitForward(model, Split(causal_model(model), layer), None), tiny.token_rows(4), False) == 0


@pytest.mark.parametrize(
    ("lora", "layer"),
    [
        ({"target_modules": "all-linear", "layers_to_transform": None}, 0),
        ({"target_modules": ["down_proj"], "layers_to_transform": [3, 1]}, 1),
        ({"target_modules": r".*layers\.2\.mlp\.up_proj|lm_head", "layers_to_transform": None}, 0),
        ({"target_modules": r".*layers\.2\.mlp\.up_proj", "layers_to_transform": None}, 2),
    ],
)
def test_the_lowest_trained_layer_decides(lora, layer):
    assert split_layer(tiny.adapted(tiny.causal_lm("qwen2"), **lora)) == layer


def test_no_split_with_dropout_below_or_with_trained_embeddings():
    assert split_layer(tiny.adapted(tiny.causal_lm(attention_dropout=0.1))) == 0
    assert split_layer(tiny.adapted(tiny.causal_lm(), lora_dropout=0.1)) == 2
    whole = tiny.causal_lm().requires_grad_(True)
    assert split_layer(whole) == 0


def test_a_model_that_the_halves_do_not_reproduce_goes_through_its_own_forward():
    """A decoder that changes what it is fed, as some do with embeddings: the upper half would do it again."""
    model = tiny.adapted(tiny.causal_lm())
    decoder = causal_model(model).get_decoder()
    decoder.register_forward_pre_hook(_scale_embeddings, with_kwargs=True)
    told: list[str] = []
    choice = choose_forward(model, tiny.token_rows(), tiny.training(), None, told.append)
    assert isinstance(choice.forward, WholeForward)
    assert (choice.split_layer, choice.max_rel_diff, choice.has_cache) == (0, None, False)
    assert len(told) == 1 and "the model is not split: logits differ by" in told[0]


def _scale_embeddings(module, args, kwargs):
    if kwargs.get("inputs_embeds") is None:
        return None
    return args, {**kwargs, "inputs_embeds": 3 * kwargs["inputs_embeds"]}


def test_bfloat16_passes_its_own_test():
    model = tiny.adapted(tiny.causal_lm().to(torch.bfloat16))
    told: list[str] = []
    choice = choose_forward(model, tiny.token_rows(), tiny.training(batching="packed"), None, told.append)
    assert (choice.split_layer, choice.batching, told) == (2, "packed", [])
    assert choice.max_rel_diff is not None and choice.max_rel_diff <= 2e-2
