"""The order of rows, the number of steps and the checkpoints."""

from dataclasses import replace

import pytest
from conftest import TRAINING

from vivarium_bridge.order import checkpoint_steps, epoch_order, step_window, total_steps


def training(**changes):
    return replace(TRAINING, **changes)


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch():
    orders = {(seed, epoch): epoch_order(seed, epoch, 50) for seed in (0, 1, 2**53) for epoch in (0, 1)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == len(orders)


def test_the_order_is_fixed_for_all_time():
    """A change of this list means that no run of the past can be repeated."""
    assert list(epoch_order(0, 0, 10)) == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


def test_one_row():
    assert list(epoch_order(3, 4, 1)) == [0]


def test_every_row_is_seen_once_an_epoch_and_the_last_batch_is_smaller():
    settings = training(per_device_train_batch_size=2, gradient_accumulation_steps=2, seed=5)
    steps = [step_window(settings, 7, step) for step in range(4)]
    assert [len(step) for step in steps] == [4, 3, 4, 3]
    for epoch in (steps[:2], steps[2:]):
        assert sorted(row for step in epoch for row in step) == list(range(7))
    assert steps[0] != steps[2]


def test_cutting_the_batch_differently_keeps_the_rows():
    def rows(size, count, step):
        return step_window(training(per_device_train_batch_size=size, gradient_accumulation_steps=count), 20, step)

    assert [rows(16, 1, step) for step in range(4)] == [rows(2, 8, step) for step in range(4)]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"num_train_epochs": 1}, 2),
        ({"num_train_epochs": 0.5}, 1),
        ({"num_train_epochs": 1.2}, 3),
        ({"max_steps": 9}, 9),
        ({"max_steps": 0}, 0),
    ],
)
def test_steps_of_seven_rows_in_batches_of_four(changes, steps):
    assert total_steps(training(**changes), 7) == steps


def test_checkpoints():
    assert checkpoint_steps(training(), 7) == [0, 7]
    assert checkpoint_steps(training(save_steps=3), 7) == [0, 3, 6, 7]
    assert checkpoint_steps(training(save_steps=3, save_at_steps=[2, 6, 8]), 6) == [0, 2, 3, 6]
    assert checkpoint_steps(training(), 0) == [0]
