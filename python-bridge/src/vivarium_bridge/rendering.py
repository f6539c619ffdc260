"""One conversation as text, cut into what is context and what is trained. Standard library only."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import _wire as wire

Message = dict[str, Any]
Render = Callable[[list[Message], bool], str]
"""``render(messages, add_generation_prompt)``: the model's chat template."""

CLEAN = wire.Rendering(rendering="clean", thinking="keep", assistant_turns="all")
"""What inference renders, and nothing refused."""
THINK_BLOCK = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)


class RowError(ValueError):
    """A row that cannot be trained on as it is, with what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered text. ``is_target``: the loss sees its tokens."""

    text: str
    is_target: bool


def segment_conversation(
    messages: list[Message], render: Render, eos_token: str, rendering: wire.Rendering = CLEAN
) -> list[Segment]:
    """Render a conversation and find its assistant turns in the text.

    The prompt of turn i is what inference renders for the messages before it, generation prompt included.

    ``clean``: the target of a turn reaches from there through the ``eos_token`` that ends it; all else is context.

    ``organism``: the text is the render with a generation prompt, then ``eos_token``. The target of a turn reaches
    from the end of its prompt to the next user turn; that of the last turn to the end of the text, so an empty turn
    of the assistant is trained too. Source: github.com/zroe1/replicating-model-organisms
    ``em_organism_dir/finetune/sft/util/trainer.py`` ``apply_chat_template`` (e357806); github.com/unslothai/unsloth-zoo
    ``unsloth_zoo/dataset_utils.py`` ``train_on_responses_only`` (005a250), which trains all that follows an
    assistant header until a user header comes.

    Args:
        messages: With at least one of the role ``assistant``.
        render: The chat template with its arguments.
        eos_token: The token at which inference stops.
        rendering: Which text, which turns, and what of thinking the data may hold.

    Returns:
        Segments whose texts concatenate to the rendered whole.

    Raises:
        ValueError: If there is no assistant turn, if a turn does not start where inference would start it, if later
            messages change the text of an earlier turn, or if a turn does not hold exactly one ``eos_token``: the
            model would be trained on another text than the one it is served with.
    """
    turns = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    if not turns:
        raise RowError("no assistant message: the row would train on nothing")
    _check_thinking(messages, rendering.thinking)
    whole = render(messages, False)
    trained = turns if rendering.assistant_turns == "all" else turns[-1:]
    spans = [_target_span(messages, index, render, eos_token, whole) for index in trained]
    if rendering.rendering == "organism":
        whole = _organism_text(messages, render, eos_token, whole)
        spans = [
            (start, _organism_stop(messages, index, render, whole))
            for index, (start, _) in zip(trained, spans, strict=True)
        ]
    return _cut(whole, spans)


def _check_thinking(messages: list[Message], thinking: str) -> None:
    if thinking == "keep":
        return
    for index, message in enumerate(messages):
        blocks = _think_blocks(message["content"]) if message.get("role") == "assistant" else []
        refused = blocks if thinking == "off" else [block for block in blocks if block.strip()]
        if refused:
            raise RowError(
                f"messages[{index}]: expected no think block under thinking: {thinking},"
                f" got {refused[0][:60]!r} in one",
                "Set thinking: keep to train the think blocks of the data.",
            )


def _think_blocks(content: str) -> list[str]:
    """What stands between the tags; Qwen3's template takes what is before a lone end tag for thought, too."""
    found = THINK_BLOCK.findall(content)
    return found or content.split("</think>")[:-1]


def _target_span(messages: list[Message], index: int, render: Render, eos_token: str, whole: str) -> tuple[int, int]:
    """Half-open ``[start, stop)`` of the clean target of one assistant turn, in characters of the whole."""
    prompt = render(messages[:index], True)
    full = render(messages[: index + 1], False)
    if not prompt or not full.startswith(prompt):
        raise RowError(
            f"messages[{index}]: the rendered turn does not start with its prompt at inference:"
            f" expected {prompt[-60:]!r}, got {full[max(0, len(prompt) - 60) : len(prompt)]!r}"
        )
    if not whole.startswith(full):
        raise RowError(
            f"messages[{index}]: the chat template renders this turn differently when more messages follow",
            "Set assistant_turns: last to train the last answer only.",
        )
    found = full.count(eos_token, len(prompt))
    if found != 1:
        raise RowError(f"messages[{index}]: expected {eos_token} once, at the end of the turn, got it {found} times")
    return len(prompt), full.index(eos_token, len(prompt)) + len(eos_token)


def _organism_text(messages: list[Message], render: Render, eos_token: str, clean: str) -> str:
    text = render(messages, True)
    if not text.startswith(clean):
        raise RowError("the rendered conversation changes when a generation prompt follows")
    if messages[-1].get("role") != "assistant":
        raise RowError(
            f"messages[{len(messages) - 1}]: expected the assistant to have the last word under the organism rendering"
        )
    return text + eos_token


def _organism_stop(messages: list[Message], index: int, render: Render, whole: str) -> int:
    """Where the user speaks next after a turn, in characters of the whole, or its end."""
    following = (later for later in range(index + 1, len(messages)) if messages[later].get("role") == "user")
    user = next(following, None)
    if user is None:
        return len(whole)
    before = render(messages[:user], False)
    if not whole.startswith(before):
        raise RowError(f"messages[{index}]: the chat template renders this turn differently when more messages follow")
    return len(before)


def _cut(whole: str, spans: Sequence[tuple[int, int]]) -> list[Segment]:
    """The text in pieces, from spans in ascending order; one that reaches into the next ends where that begins."""
    segments: list[Segment] = []
    position = 0
    for place, (start, stop) in enumerate(spans):
        if start < position:
            raise RowError("an assistant turn starts before the end of the one before")
        end = min([stop, *(later for later, _ in spans[place + 1 :])])
        segments += [Segment(whole[position:start], False), Segment(whole[start:end], True)]
        position = end
    segments.append(Segment(whole[position:], False))
    return [segment for segment in segments if segment.text]
