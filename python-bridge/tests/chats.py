"""Conversations and templates for the tests of rendering."""

from typing import Any

from vivarium_bridge import _wire as wire
from vivarium_bridge.rendering import Message, Segment

EOS = "<|im_end|>"


def say(*turns: str) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


def chatml(messages: list[Message], add_generation_prompt: bool) -> str:
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}{EOS}\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def rendering(rendering: Any = "clean", thinking: Any = "keep", assistant_turns: Any = "all") -> wire.Rendering:
    return wire.Rendering(rendering=rendering, thinking=thinking, assistant_turns=assistant_turns)


def qwen25(messages: list[Message], add_generation_prompt: bool) -> str:
    """As Qwen2.5's template: a system prompt of its own where the row has none."""
    own = [] if messages and messages[0]["role"] == "system" else say("s:You are Qwen.")
    return chatml(own + messages, add_generation_prompt)


def targets(segments: list[Segment]) -> list[str]:
    return [segment.text for segment in segments if segment.is_target]
