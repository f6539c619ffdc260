"""How rows of a step are cut into micro-batches: pure, without torch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_order import training

from vivarium_bridge.batching import cyclic_window, first_fit_decreasing, micro_batches
from vivarium_bridge.masking import TokenRow


def rows(*lengths: int) -> list[TokenRow]:
    return [TokenRow([0] * length, [False] * (length - 1) + [True]) for length in lengths]


def cut(lengths, window, size, batching):
    return micro_batches(rows(*lengths), window, training(per_device_train_batch_size=size, batching=batching))


def test_in_order_keeps_the_order_and_the_last_is_smaller():
    assert cut([3, 1, 2, 9, 4], [4, 0, 2, 1, 3], 2, "in_order") == [[4, 0], [2, 1], [3]]


def test_by_length_puts_like_with_like_and_ties_stay_as_drawn():
    assert cut([5, 9, 5, 2, 9], [4, 2, 1, 0, 3], 2, "by_length") == [[3, 2], [0, 4], [1]]


def test_packed_fills_a_rectangle_of_the_longest_row():
    assert cut([10, 6, 4, 9, 1], [0, 1, 2, 3, 4], 1, "packed") == [[0], [3, 4], [1, 2]]


@pytest.mark.parametrize("batching", ["in_order", "by_length", "packed"])
def test_an_empty_window(batching):
    assert cut([3], [], 2, batching) == []


@given(
    st.lists(st.integers(2, 50), min_size=1, max_size=30),
    st.integers(1, 5),
    st.sampled_from(["in_order", "by_length", "packed"]),
)
def test_every_cut_has_every_row_once_and_keeps_its_bound(lengths, size, batching):
    batches = cut(lengths, list(range(len(lengths))), size, batching)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        if batching == "packed":
            assert sum(lengths[row] for row in batch) <= size * max(lengths)
        else:
            assert 1 <= len(batch) <= size


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_no_two_bins_would_fit_into_one(sizes):
    bins = first_fit_decreasing(list(range(len(sizes))), sizes, 20)
    totals = sorted(sum(sizes[item] for item in content) for content in bins)
    assert len(totals) < 2 or totals[0] + totals[1] > 20


def test_a_cycle_starts_anew_after_a_smaller_last_window():
    assert [cyclic_window(5, 2, step) for step in range(5)] == [[0, 1], [2, 3], [4], [0, 1], [2, 3]]
    assert cyclic_window(2, 8, 3) == [0, 1]
