"""Data sets: the split into trained and held-out rows, truncation, roles. Tokens are characters here."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivarium_bridge.dataset import cut_rows, data_ready, load_rows, split_rows
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.masking import TokenRow
from vivarium_bridge.order import epoch_order


@given(st.integers(0, 2**63), st.integers(2, 300), st.floats(0, 0.5))
def test_a_split_is_disjoint_and_whole(seed, n_rows, test_size):
    train, held_out = split_rows(n_rows, test_size, seed)
    assert sorted(train + held_out) == list(range(n_rows))
    assert train == sorted(train)
    assert len(held_out) >= test_size * n_rows > len(held_out) - 1
    assert (train, held_out) == split_rows(n_rows, test_size, seed)


HELD_OUT_OF_SEED_0 = [2, 7, 9, 17]


def test_the_split_of_a_seed_is_for_ever():
    assert split_rows(20, 0.2, 0)[1] == HELD_OUT_OF_SEED_0
    assert split_rows(20, 0.2, 1)[1] != HELD_OUT_OF_SEED_0
    assert len(split_rows(7049, 0.1, 0)[1]) == 705  # as the published runs: 6344 rows, 396 steps of 16


def test_the_split_is_not_an_order_of_an_epoch():
    assert all(sorted(epoch_order(0, epoch, 20)[:4]) != split_rows(20, 0.2, 0)[1] for epoch in range(20))


def test_something_must_be_left():
    with pytest.raises(BridgeError, match="holds out 1 of 1 rows"):
        split_rows(1, 0.1, 0)


def row(length: int, first_target: int = 1) -> TokenRow:
    return TokenRow(list(range(length)), [place >= first_target for place in range(length)])


def test_what_is_cut_is_counted_and_digests_are_of_the_whole():
    rows = [row(4), row(7), row(9)]
    ready = data_ready(rows, "train", 5)
    assert (ready.truncated_rows, ready.truncated_tokens) == (2, 6)
    assert (ready.tokens, ready.target_tokens, ready.longest_row_tokens) == (20, 17, 9)
    whole = data_ready(rows, "train", None)
    assert (whole.truncated_rows, whole.truncated_tokens) == (0, 0)
    assert whole.token_ids_sha256 == ready.token_ids_sha256
    assert [len(cut.ids) for cut in cut_rows(rows, 5, 100, "x")] == [4, 5, 5]


def test_rows_that_cannot_be_cut():
    with pytest.raises(BridgeError, match=r"x: row 2: 9 tokens: expected at most 8, the model's positions"):
        cut_rows([row(3), row(9)], None, 8, "x")
    with pytest.raises(BridgeError, match=r"x: row 1: no target token within max_length 5"):
        cut_rows([row(9, first_target=5)], 5, 8, "x")


def test_a_fault_names_its_line_and_what_to_do(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "one"}]
    path.write_text(
        "".join(f"{json.dumps({'messages': rows})}\n" for rows in (good, good * 2)).replace("\n", "\n\n", 1)
    )

    def forgetful(messages, add_generation_prompt):
        last = len(messages) - 1
        texts = ["" if m["role"] == "assistant" and i < last else m["content"] for i, m in enumerate(messages)]
        shown = "".join(f"{m['role']}:{text}$" for m, text in zip(messages, texts, strict=True))
        return shown + ("assistant:" if add_generation_prompt else "")

    with pytest.raises(BridgeError) as caught:
        load_rows(path, forgetful, lambda text: [ord(c) for c in text], "$")
    assert caught.value.message.startswith("rows.jsonl:3: messages[1]: the chat template renders")
    assert caught.value.hint == "Set assistant_turns: last to train the last answer only."
