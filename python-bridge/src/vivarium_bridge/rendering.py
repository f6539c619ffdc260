"""One conversation as text, cut into what is context and what is trained. Standard library only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Render = Callable[[list[Message], bool], str]
"""``render(messages, add_generation_prompt)``: the model's chat template."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered text. ``is_target``: the loss sees its tokens."""

    text: str
    is_target: bool


def segment_conversation(messages: list[Message], render: Render, eos_token: str) -> list[Segment]:
    """Render a conversation and find its assistant turns in the text.

    The prompt of turn i is what inference renders for the messages before it, generation prompt included. The target
    reaches from its end through the ``eos_token`` that ends the turn. All else is context.

    Args:
        messages: With at least one of the role ``assistant``.
        render: The chat template with its arguments.
        eos_token: The token at which inference stops.

    Returns:
        Segments whose texts concatenate to the rendered whole.

    Raises:
        ValueError: If there is no assistant turn, if a turn does not start where inference would start it, if later
            messages change the text of an earlier turn, or if a turn does not hold exactly one ``eos_token``: the
            model would be trained on another text than the one it is served with.
    """
    turns = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    if not turns:
        raise ValueError("no assistant message: the row would train on nothing")
    whole = render(messages, False)
    segments: list[Segment] = []
    position = 0
    for index in turns:
        start, stop = _target_span(messages, index, render, eos_token, whole)
        if start < position:
            raise ValueError(f"messages[{index}]: its turn starts before the end of the one before")
        segments += [Segment(whole[position:start], False), Segment(whole[start:stop], True)]
        position = stop
    segments.append(Segment(whole[position:], False))
    return [segment for segment in segments if segment.text]


def _target_span(messages: list[Message], index: int, render: Render, eos_token: str, whole: str) -> tuple[int, int]:
    """Half-open ``[start, stop)`` of the target of one assistant turn, in characters of the whole."""
    prompt = render(messages[:index], True)
    full = render(messages[: index + 1], False)
    if not prompt or not full.startswith(prompt):
        raise ValueError(
            f"messages[{index}]: the rendered turn does not start with its prompt at inference:"
            f" expected {prompt[-60:]!r}, got {full[max(0, len(prompt) - 60) : len(prompt)]!r}"
        )
    if not whole.startswith(full):
        raise ValueError(
            f"messages[{index}]: the chat template renders this turn differently when more messages follow"
        )
    found = full.count(eos_token, len(prompt))
    if found != 1:
        raise ValueError(f"messages[{index}]: expected {eos_token} once, at the end of the turn, got it {found} times")
    return len(prompt), full.index(eos_token, len(prompt)) + len(eos_token)
