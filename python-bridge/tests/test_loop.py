"""The training loop against a plain one that shares nothing with it."""

import math

import pytest
import tiny
import torch

from vivarium_bridge.batching import micro_batches
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.loop import Loop, check_finite, check_norms
from vivarium_bridge.optim import make_schedule
from vivarium_bridge.order import step_window
from vivarium_bridge.prefix_cache import PrefixCache

ROWS = tiny.token_rows()
STEPS = 4
LORAS = {
    "rank 1, one layer": {"r": 1, "layers_to_transform": [2]},
    "rank 4, two layers": {"r": 4, "layers_to_transform": [1, 2]},
    "all-linear": {"r": 4, "target_modules": "all-linear", "layers_to_transform": None},
    "rsLoRA": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "DoRA": {"r": 2, "use_dora": True},
}
CUTS = {
    "8 x 1": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
    "2 x 4": {},
    "1 x 8": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "by length": {"batching": "by_length"},
    "packed": {"batching": "packed"},
    "checkpointed": {"gradient_checkpointing": "on"},
    "packed, checkpointed": {"batching": "packed", "gradient_checkpointing": "on"},
}


def reference(model, arguments) -> tuple[torch.Tensor, list[float]]:
    windows = [step_window(arguments, len(ROWS), step) for step in range(STEPS)]
    steps = [[window[start : start + 2] for start in range(0, len(window), 2)] for window in windows]
    rates = [make_schedule(arguments, STEPS)(step) for step in range(STEPS)]
    losses = tiny.reference_training(model, ROWS, steps, arguments, rates)
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]), losses


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("lora", LORAS.values(), ids=LORAS)
def test_the_adapter_is_that_of_a_plain_loop(kind, lora):
    wanted, losses = reference(tiny.adapted(tiny.causal_lm(kind), **lora), tiny.training())
    start = tiny.weights(Loop(tiny.adapted(tiny.causal_lm(kind), **lora), ROWS, [], tiny.training(), 1, None, print))
    assert tiny.rel_diff(start, wanted) > 0.01
    for changes in CUTS.values():
        loop = tiny.make_loop(tiny.adapted(tiny.causal_lm(kind), **lora), ROWS, tiny.training(**changes))
        stats = tiny.run(loop)
        assert tiny.rel_diff(tiny.weights(loop), wanted) < 1e-5
        assert [step.loss for step in stats] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("changes", CUTS.values(), ids=CUTS)
def test_a_full_fine_tune_is_that_of_a_plain_loop(changes):
    arguments = {"learning_rate": 1e-3}
    wanted, losses = reference(tiny.causal_lm().requires_grad_(True), tiny.training(**arguments))
    loop = tiny.make_loop(tiny.causal_lm().requires_grad_(True), ROWS, tiny.training(**arguments, **changes))
    stats = tiny.run(loop)
    assert tiny.rel_diff(tiny.weights(loop), wanted) < 1e-5
    assert [step.loss for step in stats] == pytest.approx(losses, rel=1e-5)
    assert (stats[0].a_norm, stats[0].b_norm) == (None, None)


def test_what_a_step_tells():
    loop = tiny.make_loop(tiny.adapted(tiny.causal_lm(), use_dora=True), ROWS, tiny.training(weight_decay=0.0))
    stats = tiny.run(loop, 1)[0]
    rows = [ROWS[index] for index in step_window(tiny.training(), len(ROWS), 0)]
    pairs = [rows[start : start + 2] for start in range(0, 8, 2)]
    assert stats.tokens == sum(len(row.ids) for row in rows)
    assert stats.target_tokens == sum(sum(row.targets) for row in rows)
    assert stats.padding_tokens == sum(abs(len(a.ids) - len(b.ids)) for a, b in pairs)
    assert stats.learning_rate == 1e-2
    assert (stats.kl, stats.mfu) == (None, None)
    assert stats.seconds > 0
    a, b, magnitude = loop.parameters.values()
    assert magnitude.ndim == 1
    assert stats.a_norm == pytest.approx(a.norm().item())
    assert stats.b_norm == pytest.approx(b.norm().item())
    assert stats.weights_norm == pytest.approx(tiny.weights(loop).norm().item())
    packed = tiny.make_loop(tiny.adapted(tiny.causal_lm()), ROWS, tiny.training(batching="packed"))
    assert tiny.run(packed, 1)[0].padding_tokens == 0


def test_preparing_leaves_everything_as_it_was():
    model = tiny.adapted(tiny.causal_lm(), lora_dropout=0.3)
    loop = Loop(
        model, ROWS, tiny.token_rows(4), tiny.training(gradient_checkpointing="auto", kl_weight=1.0), 4, None, print
    )
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    kept = torch.ones_like(loop.parameters[name := next(iter(loop.parameters))])
    loop.parameters[name].grad = kept
    random_state = torch.get_rng_state()
    prepared = loop.prepare(Cancellation())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert loop.parameters[name].grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert [p.grad for p in loop.parameters.values() if p.grad is not kept] == [None]
    assert [module.training for module in model.modules()] == modes
    assert not loop.optimizer.state
    assert (prepared.split_layer, prepared.prefix_cache, prepared.gradient_checkpointing) == (2, False, False)
    assert prepared.split_max_rel_diff is not None and prepared.split_max_rel_diff <= 1e-5


def test_dropout_goes_on_from_the_same_random_numbers():
    """The same seed gives the same run, whether or not something was probed or measured in between."""

    def train(measure: bool):
        model = tiny.adapted(tiny.causal_lm(), lora_dropout=0.3)
        loop = Loop(model, ROWS, [], tiny.training(gradient_checkpointing="auto"), STEPS, None, print)
        if measure:
            tiny.make_loop(tiny.adapted(tiny.causal_lm()), ROWS, tiny.training())
        torch.manual_seed(5)
        loop.prepare(Cancellation())
        for step in range(STEPS):
            loop.run_step(step, Cancellation())
            if measure:
                loop.held_out(ROWS[:5], Cancellation())
        return tiny.weights(loop)

    plain = train(False)
    assert torch.equal(plain, train(True))
    without = tiny.make_loop(tiny.adapted(tiny.causal_lm()), ROWS, tiny.training())
    tiny.run(without)
    assert tiny.rel_diff(plain, tiny.weights(without)) > 1e-3


@pytest.mark.parametrize("batching", ["in_order", "packed"])
def test_held_out_loss_is_the_mean_over_all_targets(batching):
    model = tiny.adapted(tiny.causal_lm(), lora_dropout=0.5)
    loop = tiny.make_loop(model, ROWS, tiny.training(batching=batching))
    held_out = tiny.token_rows(7, seed=9)
    loss, n_targets = loop.held_out(held_out, Cancellation())
    with torch.no_grad():
        wanted = sum(tiny.plain_loss(model.eval(), [row]).item() for row in held_out)
    assert n_targets == sum(sum(row.targets) for row in held_out)
    assert loss == pytest.approx(wanted / n_targets, rel=1e-5)
    model.train()
    loop.held_out(held_out, Cancellation())
    assert model.training
    assert all(parameter.grad is None for parameter in loop.parameters.values())


@pytest.mark.parametrize("batching", ["in_order", "packed"])
def test_the_kl_term_is_that_of_the_published_code(batching):
    """``mean over tokens and vocabulary of p (log p - log q)``, rows in file order, the last batch smaller."""
    kl_rows = tiny.token_rows(5, seed=4)
    weight = 300.0
    model = tiny.adapted(tiny.causal_lm())
    loop = tiny.make_loop(
        model, ROWS, tiny.training(batching=batching, kl_weight=weight, max_grad_norm=0.0), kl_rows=kl_rows
    )
    twin = tiny.adapted(tiny.causal_lm())
    for step, window in enumerate([[0, 1, 2], [3, 4], [0, 1, 2]]):
        twin.load_state_dict(model.state_dict())
        twin.zero_grad()
        rows = [ROWS[index] for index in step_window(tiny.training(), len(ROWS), step)]
        (tiny.plain_loss(twin, rows) / sum(row.n_targets for row in rows)).backward()
        ids, mask, _ = tiny.plain_batch([kl_rows[index] for index in window])
        with torch.no_grad(), twin.disable_adapter():
            p = twin(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        q = twin(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        terms = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none") * mask.unsqueeze(-1)
        (weight * terms.sum() / mask.unsqueeze(-1).expand_as(terms).sum()).backward()
        stats = loop.run_step(step, Cancellation())
        assert stats.kl == pytest.approx((terms.sum() / mask.sum()).item(), rel=1e-4)
        assert stats.kl is not None and stats.kl > 1e-3
        for found, wanted in zip(loop.parameters.values(), tiny.gradients(twin).values(), strict=True):
            assert tiny.rel_diff(found.grad, wanted) < 1e-4


def test_a_weight_of_zero_measures_no_kl():
    loop = tiny.make_loop(tiny.adapted(tiny.causal_lm()), ROWS, tiny.training(), kl_rows=tiny.token_rows(3))
    assert tiny.run(loop, 1)[0].kl is None


def test_cancelled_between_micro_batches_with_the_weights_of_the_start():
    class AfterTwo(Cancellation):
        looks = 0

        def check(self):
            self.looks += 1
            if self.looks > 2:
                raise BridgeError("CANCELLED", "cancelled by the driver")

    loop = tiny.make_loop(tiny.adapted(tiny.causal_lm()), ROWS, tiny.training())
    tiny.run(loop, 1)
    before = tiny.weights(loop)
    with pytest.raises(BridgeError, match="cancelled"):
        loop.run_step(1, AfterTwo())
    assert torch.equal(tiny.weights(loop), before)
    stats = loop.run_step(1, Cancellation())
    whole = tiny.make_loop(tiny.adapted(tiny.causal_lm()), ROWS, tiny.training())
    assert tiny.run(whole, 2)[1].loss == stats.loss
    assert torch.equal(tiny.weights(whole), tiny.weights(loop))


def test_a_loss_that_is_not_finite_updates_nothing():
    model = tiny.adapted(tiny.causal_lm())
    loop = tiny.make_loop(model, ROWS, tiny.training())
    loop.parameters[next(iter(loop.parameters))].data.fill_(math.inf)
    b = list(loop.parameters.values())[1].clone()
    stats = loop.run_step(0, Cancellation())
    assert not stats.is_finite
    assert torch.equal(list(loop.parameters.values())[1], b)
    with pytest.raises(BridgeError) as caught:
        check_finite(stats, 1)
    assert caught.value.code == "NON_FINITE_LOSS"
    with pytest.raises(BridgeError, match="not finite after step 1"):
        check_norms(stats, 1)


@pytest.mark.parametrize("what", ["everything", "lora_magnitude_vector", "lora_B"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_weight_that_an_update_blew_up_is_seen(what, value):
    base = tiny.causal_lm()
    model = base.requires_grad_(True) if what == "everything" else tiny.adapted(base, use_dora=True)
    loop = tiny.make_loop(model, ROWS, tiny.training())
    check_norms(loop.run_step(0, Cancellation()), 1)
    name = next(name for name in reversed(loop.parameters) if what in name or what == "everything")
    update = loop.optimizer.step

    def blow_up():
        update()
        loop.parameters[name].data.view(-1)[-1] = value

    loop.optimizer.step = blow_up
    stats = loop.run_step(1, Cancellation())
    assert stats.is_finite  # it was, before the update
    with pytest.raises(BridgeError, match="the trained weights are not finite after step 2"):
        check_norms(stats, 2)


def test_the_cache_is_used_where_there_is_a_split(tmp_path):
    def prepare(**lora):
        cache = PrefixCache("0" * 64, 2**30, tmp_path, print)
        loop = Loop(tiny.adapted(tiny.causal_lm(), **lora), ROWS, [], tiny.training(), 1, cache, print)
        return loop.prepare(Cancellation())

    assert prepare().prefix_cache
    assert not prepare(target_modules="all-linear", layers_to_transform=None).prefix_cache


def test_micro_batches_of_a_step_are_those_of_its_window():
    arguments = tiny.training(batching="packed")
    for step in range(3):
        window = step_window(arguments, len(ROWS), step)
        assert sorted(index for batch in micro_batches(ROWS, window, arguments) for index in batch) == sorted(window)
