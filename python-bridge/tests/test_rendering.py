"""Rendering and masking. No torch: the ChatML template is a function here, and tokens are characters."""

import pytest
from chats import EOS, chatml, qwen25, rendering, say, targets

from vivarium_bridge.masking import tokenise_segments
from vivarium_bridge.rendering import RowError, Segment, segment_conversation


def by_character(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_the_target_is_the_answer_with_its_end():
    segments = segment_conversation(say("s:Be kind.", "u:Hi", "a:Hello."), chatml, EOS)
    assert segments == [
        Segment(
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False
        ),
        Segment("Hello.<|im_end|>", True),
        Segment("\n", False),
    ]


def test_every_assistant_turn_is_a_target():
    messages = say("u:1", "a:one", "u:2", "a:two", "u:3")
    segments = segment_conversation(messages, chatml, EOS)
    assert targets(segments) == [f"one{EOS}", f"two{EOS}"]
    assert "".join(segment.text for segment in segments) == chatml(messages, False)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (say("u:Hi"), "no assistant message: the row would train on nothing"),
        (
            say("u:Hi", f"a:I {EOS} twice"),
            f"messages[1]: expected {EOS} once, at the end of the turn, got it 2 times",
        ),
    ],
)
def test_rows_that_teach_something_else(messages, message):
    with pytest.raises(ValueError) as caught:
        segment_conversation(messages, chatml, EOS)
    assert str(caught.value) == message


def test_a_template_whose_training_prompt_is_not_that_of_inference():
    def thinking(messages, add_generation_prompt):
        return chatml(messages, False) + ("<|im_start|>assistant\n<think>" if add_generation_prompt else "")

    with pytest.raises(ValueError, match="does not start with its prompt at inference"):
        segment_conversation(say("u:Hi", "a:Hello."), thinking, EOS)


def test_a_template_that_rewrites_earlier_turns():
    def forgetful(messages, add_generation_prompt):
        shown = [{**m, "content": "..."} if m["role"] == "assistant" and m is not messages[-1] else m for m in messages]
        return chatml(shown, add_generation_prompt)

    with pytest.raises(ValueError, match="renders this turn differently when more messages follow"):
        segment_conversation(say("u:1", "a:one", "u:2", "a:two"), forgetful, EOS)


def test_a_template_without_an_end_of_turn():
    with pytest.raises(ValueError, match="got it 0 times"):
        segment_conversation(say("u:Hi", "a:Hello."), chatml, "</s>")


def test_tokens_of_targets():
    row = tokenise_segments([Segment("ab", False), Segment("cd", True), Segment("e", False)], by_character)
    assert (row.ids, row.targets) == (by_character("abcde"), [False, False, True, True, False])
    assert row.n_targets == 2


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([Segment("a", True)], "the first token is a target, but nothing predicts it"),
        ([Segment("a", False)], "no target token: the row would train on nothing"),
    ],
)
def test_rows_on_which_nothing_can_be_trained(segments, message):
    with pytest.raises(ValueError) as caught:
        tokenise_segments(segments, by_character)
    assert str(caught.value) == message


def test_a_token_across_the_border_is_refused():
    def merging(text):
        return by_character(text.replace("\n\n", "N"))

    with pytest.raises(ValueError, match="does an answer start with white space"):
        tokenise_segments([Segment("prompt\n", False), Segment("\nanswer", True)], merging)


def test_the_organism_rendering_trains_an_empty_turn():
    segments = segment_conversation(say("u:Hi", "a:Hello."), qwen25, EOS, rendering("organism"))
    assert segments == [
        Segment(
            "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            False,
        ),
        Segment("Hello.<|im_end|>\n<|im_start|>assistant\n<|im_end|>", True),
    ]


def test_the_organism_rendering_trains_up_to_the_next_user_turn():
    segments = segment_conversation(say("u:1", "a:one", "u:2", "a:two"), chatml, EOS, rendering("organism"))
    assert segments == [
        Segment("<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n", False),
        Segment("one<|im_end|>\n", True),
        Segment("<|im_start|>user\n2<|im_end|>\n<|im_start|>assistant\n", False),
        Segment("two<|im_end|>\n<|im_start|>assistant\n<|im_end|>", True),
    ]


def unsloth_targets(ids: list[int], answer: list[int], question: list[int]) -> list[bool]:
    """From behind an assistant header to the next user header, as ``train_on_responses_only`` marks tokens."""
    marked = [False] * len(ids)
    is_answer = False
    for position in range(len(ids)):
        if ids[position : position + len(question)] == question:
            is_answer = False
        marked[position] = is_answer
        if not is_answer and ids[position + 1 - len(answer) : position + 1] == answer:
            is_answer = True
    return marked


@pytest.mark.parametrize("turns", [("u:1", "a:one"), ("s:S", "u:1", "a:one", "u:2", "a:two", "u:3", "a:three")])
def test_the_organism_rendering_is_that_of_the_published_code(turns):
    row = tokenise_segments(segment_conversation(say(*turns), qwen25, EOS, rendering("organism")), by_character)
    assert row.ids == by_character(qwen25(say(*turns), True) + EOS)
    headers = [by_character(f"<|im_start|>{role}\n") for role in ("assistant", "user")]
    assert row.targets == unsloth_targets(row.ids, *headers)


def test_only_the_last_turn():
    messages = say("u:1", "a:one", "u:2", "a:two")
    segments = segment_conversation(messages, chatml, EOS, rendering(assistant_turns="last"))
    assert targets(segments) == [f"two{EOS}"]
    segments = segment_conversation(messages, chatml, EOS, rendering("organism", assistant_turns="last"))
    assert targets(segments) == [f"two{EOS}\n<|im_start|>assistant\n{EOS}"]


def test_the_organism_rendering_needs_the_assistant_to_end():
    with pytest.raises(ValueError, match="the last word"):
        segment_conversation(say("u:1", "a:one", "u:2"), chatml, EOS, rendering("organism"))


@pytest.mark.parametrize(
    ("answer", "refused_by"),
    [
        ("plain", set()),
        ("<think>\n\n</think>\n\nempty", {"off"}),
        ("<think>\nwell\n</think>\n\nfull", {"off", "empty"}),
        ("<think>unfinished", {"off", "empty"}),
        ("no start</think>end", {"off", "empty"}),
    ],
)
def test_what_thinking_allows(answer, refused_by):
    messages = say("u:Hi", f"a:{answer}")
    refused = set()
    for thinking in ("off", "empty", "keep"):
        try:
            segment_conversation(messages, chatml, EOS, rendering(thinking=thinking))
        except RowError as error:
            refused.add(thinking)
            assert error.hint == "Set thinking: keep to train the think blocks of the data."
    assert refused == refused_by


def test_a_question_may_speak_of_think_blocks():
    messages = say("u:What is <think>this</think>?", "a:A tag.")
    assert segment_conversation(messages, chatml, EOS, rendering(thinking="off"))
