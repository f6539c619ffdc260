"""Losses of a micro-batch against autograd on whole logits; what packed rows see."""

import pytest
import tiny
import torch
from torch.nn import functional

from vivarium_bridge import head as head_module
from vivarium_bridge.choosing import choose_forward
from vivarium_bridge.flops import Work, costs_of, peak_flops, peak_of
from vivarium_bridge.forward import SplitForward, WholeForward
from vivarium_bridge.head import Head
from vivarium_bridge.layout import packed
from vivarium_bridge.masking import TokenRow
from vivarium_bridge.split import Split, causal_model, decoder_layers


def split_forward(model, layer: int | None = 2) -> SplitForward:
    return SplitForward(model, None if layer is None else Split(causal_model(model), layer), None)


@pytest.fixture(params=[head_module.CHUNK_BYTES["cpu"], 4 * tiny.VOCABULARY * 3], ids=["one chunk", "three positions"])
def chunk_bytes(request):
    before = dict(head_module.CHUNK_BYTES)
    head_module.CHUNK_BYTES["cpu"] = request.param
    yield
    head_module.CHUNK_BYTES.update(before)


@pytest.mark.usefixtures("chunk_bytes")
def test_the_gradient_by_hand_is_that_of_autograd():
    model = tiny.causal_lm("qwen2").double()
    head = Head(model)
    assert head.is_chunked
    draw = torch.Generator().manual_seed(0)
    hidden, base = torch.randn(2, 10, 32, generator=draw, dtype=torch.float64)
    labels = torch.randint(tiny.VOCABULARY, (10,), generator=draw)
    weight = model.lm_head.weight

    def gradient(loss_of):
        leaf = hidden.clone().requires_grad_()
        loss = loss_of(leaf) * 0.3
        loss.backward()
        return loss.detach(), leaf.grad

    def naive_kl(leaf):
        p, q = (base @ weight.T).softmax(-1), (leaf @ weight.T).softmax(-1)
        return (p * (p.log() - q.log())).sum()

    pairs = [
        (
            lambda leaf: head.cross_entropy(leaf, labels),
            lambda leaf: functional.cross_entropy(leaf @ weight.T, labels, reduction="sum"),
        ),
        (lambda leaf: head.kl_divergence(leaf, head.reference(base)), naive_kl),
    ]
    for ours, naive in pairs:
        for found, wanted in zip(gradient(ours), gradient(naive), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
        leaf = hidden[:4].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, ours=ours: ours(torch.cat([x, hidden[4:]])), leaf)


def test_the_softmax_is_in_float32_where_the_model_is_in_bfloat16():
    model = tiny.causal_lm("qwen2").to(torch.bfloat16)
    hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).requires_grad_()
    labels = torch.arange(50)
    loss = Head(model).cross_entropy(hidden, labels)
    wanted = functional.cross_entropy(model.lm_head(hidden).float(), labels, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    assert loss.dtype == torch.float32
    (found,) = torch.autograd.grad(loss, hidden)
    (grad,) = torch.autograd.grad(wanted, hidden)
    assert found.dtype == torch.bfloat16
    assert tiny.rel_diff(found.float(), grad.float()) < 5e-3


def test_logits_far_from_zero_do_not_overflow():
    model = tiny.causal_lm("qwen2")
    hidden = torch.full((2, 32), 3e4).requires_grad_()
    loss = Head(model).cross_entropy(hidden, torch.tensor([0, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all()


def test_a_trained_or_adapted_output_layer_is_left_to_autograd():
    tied = tiny.causal_lm("qwen3").requires_grad_(True)
    assert not Head(tied).is_chunked
    regex = r".*layers\.3\.mlp\.up_proj|lm_head"
    adapted = tiny.adapted(tiny.causal_lm("qwen2"), target_modules=regex, layers_to_transform=None)
    assert not Head(causal_model(adapted)).is_chunked
    for model in (tied, adapted):
        rows = tiny.token_rows(4)
        losses = [way.target_loss(rows, False) for way in (split_forward(model, None), WholeForward(model))]
        found, wanted = (
            torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]) for loss in losses
        )
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("way", ["split", "unsplit", "whole"])
def test_the_loss_is_that_of_whole_logits(kind, is_packed, way):
    model = tiny.adapted(tiny.causal_lm(kind))
    forward = WholeForward(model) if way == "whole" else split_forward(model, 2 if way == "split" else None)
    rows = tiny.token_rows(6)
    torch.testing.assert_close(
        forward.target_loss(rows, is_packed), tiny.plain_loss(model, rows), rtol=1e-5, atol=0, check_dtype=False
    )


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("way", ["split", "whole"])
def test_packed_rows_do_not_see_each_other(kind, way):
    model = tiny.adapted(tiny.causal_lm(kind))
    forward = WholeForward(model) if way == "whole" else split_forward(model)
    rows = tiny.token_rows(4)
    other = TokenRow([(token + 1) % tiny.VOCABULARY for token in rows[1].ids], rows[1].targets)

    def logits(rows):
        with torch.no_grad():
            return forward.target_logits(rows, True).split([row.n_targets for row in rows])

    together, changed = logits(rows), logits([rows[0], other, *rows[2:]])
    for index, row in enumerate(rows):
        torch.testing.assert_close(together[index], logits([row])[0], rtol=1e-4, atol=1e-4)
        assert torch.equal(together[index], changed[index]) == (index != 1)


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("trap", ["a mask of ones", "a cache"])
def test_what_mixes_packed_rows_is_not_given(kind, trap):
    """The traps that ``layout.packed`` keeps clear of: they are still there."""
    model = tiny.causal_lm(kind)
    layout = packed(tiny.token_rows(4), "cpu")
    assert list(layout.inputs) == ["position_ids"]
    changes = {"attention_mask": torch.ones_like(layout.ids)} if trap == "a mask of ones" else {"use_cache": True}
    with torch.no_grad():
        wanted = model(input_ids=layout.ids, use_cache=False, **layout.inputs).logits
        mixed = model(**{"input_ids": layout.ids, "use_cache": False, **layout.inputs, **changes}).logits
    assert tiny.rel_diff(mixed, wanted) > 0.05


def test_a_model_that_mixes_packed_rows_is_given_padded_ones():
    model = tiny.adapted(tiny.causal_lm())
    causal_model(model).get_decoder().register_forward_pre_hook(_drop_positions, with_kwargs=True)
    told: list[str] = []
    choice = choose_forward(model, tiny.token_rows(), tiny.training(batching="packed"), None, told.append)
    assert choice.batching == "by_length"
    assert choice.split_layer == 2
    assert len(told) == 1 and "rows are not packed: this model mixes them" in told[0]


def _drop_positions(module, args, kwargs):
    return args, {**kwargs, "position_ids": None}


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("way", ["split", "unsplit", "whole"])
def test_kl_is_that_of_whole_logits(way, is_packed):
    model = tiny.adapted(tiny.causal_lm(), layers_to_transform=[2, 3], r=2)
    forward = WholeForward(model) if way == "whole" else split_forward(model, 2 if way == "split" else None)
    rows = tiny.token_rows(5)
    expected = torch.zeros(())
    for row in rows:
        ids = torch.tensor([row.ids])
        with torch.no_grad(), model.disable_adapter():
            p = model(input_ids=ids).logits.log_softmax(-1)
        expected = expected + (p.exp() * (p - model(input_ids=ids).logits.log_softmax(-1))).sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 4
    found = forward.kl_divergence(rows, is_packed)
    assert expected.item() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0, check_dtype=False)
    for a, b in zip(torch.autograd.grad(found, trained), torch.autograd.grad(expected, trained), strict=True):
        assert tiny.rel_diff(a, b) < 1e-4


def test_no_logits_outlive_a_chunk():
    """What autograd keeps for the backward pass: no tensor with a dimension of the vocabulary."""
    model = tiny.adapted(tiny.causal_lm("qwen2"))
    saved: list[tuple[int, ...]] = []
    weights = {p.data_ptr() for p in model.parameters()}

    def note(tensor):
        if tensor.data_ptr() not in weights:
            saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        split_forward(model).target_loss(tiny.token_rows(4), False)
    assert saved
    assert not any(tiny.VOCABULARY in shape for shape in saved)


def test_flops_are_those_that_torch_counts():
    """Every matrix product of a step, but for the lowest trained layer's backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny.adapted(tiny.causal_lm(attn_implementation="eager")).train()
    causal = causal_model(model)
    rows = [TokenRow(list(range(16)), [False] * 8 + [True] * 8)] * 3
    forward = split_forward(model)
    with FlopCounterMode(display=False) as counter:
        forward.target_loss(rows, False).backward()
    counted = counter.get_total_flops()
    work, costs = forward.work, costs_of(causal, decoder_layers(causal), 2)
    assert (work.below_tokens, work.above_tokens, work.backward_tokens) == (48, 48, 48)
    assert (work.head_forward, work.head_backward) == (24, 24)
    assert work.above_pairs == 3 * 16 * 17 // 2
    assert 0.85 < costs.flops(work) / counted < 1  # eager attention computes the masked half of the pairs, too


def test_flops_of_a_layer_by_hand():
    model = tiny.causal_lm("qwen2", num_hidden_layers=1)
    costs = costs_of(model, decoder_layers(model), 0)
    work = Work()
    work.above([2], with_gradient=False)
    matrices = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 48
    assert costs.flops(work) == 2 * matrices * 2 + 4 * 32 * 3  # 3 pairs: 1-1, 2-1, 2-2
    work.head(5, with_gradient=True)
    assert costs.flops(work) - 2 * matrices * 2 - 4 * 32 * 3 == 2 * 2 * 5 * 32 * tiny.VOCABULARY


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GH200 480GB", None),
    ],
)
def test_peaks_of_known_gpus(name, peak):
    assert peak_of(name) == peak


def test_there_is_no_peak_of_a_cpu():
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None
