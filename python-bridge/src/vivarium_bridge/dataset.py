"""The data set as token rows, and the digests by which the driver compares them with its own."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import _wire as wire
from .errors import BridgeError
from .masking import Encode, TokenRow, tokenise_segments
from .rendering import Message, Render, segment_conversation


def load_rows(path: Path, render: Render, encode: Encode, eos_token: str) -> list[TokenRow]:
    """Read, render and tokenise the data set, in the order of the file.

    Raises:
        BridgeError: ``BAD_DATA`` with ``file:line`` for the first row that cannot be trained on.
    """
    if not path.is_file():
        raise BridgeError("BAD_DATA", f"{path}: no such file")
    rows: list[TokenRow] = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                segments = segment_conversation(parse_messages(line), render, eos_token)
                rows.append(tokenise_segments(segments, encode))
            except ValueError as error:
                raise BridgeError("BAD_DATA", f"{path.name}:{number}: {error}") from error
    if not rows:
        raise BridgeError("BAD_DATA", f"{path.name}: no rows")
    return rows


def parse_messages(line: str) -> list[Message]:
    """The messages of one line of the data set.

    Raises:
        ValueError: If it is not JSON of the shape ``{messages: [{role, content}, ...]}``.
    """
    value: Any = json.loads(line)
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        raise ValueError("expected an object with messages")
    for index, message in enumerate(messages):
        texts = [message.get(key) for key in ("role", "content")] if isinstance(message, dict) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"messages[{index}]: expected texts role and content")
    return messages


def cut_rows(rows: list[TokenRow], max_length: int | None, max_positions: int) -> list[TokenRow]:
    """Cut rows at their end to ``max_length`` tokens; null cuts nothing.

    Args:
        rows: In the order of the data set's lines.
        max_length: ``training.max_length``.
        max_positions: What the model was made for, in tokens.

    Raises:
        BridgeError: ``BAD_DATA`` naming the line of a row that is still longer than the model's positions, or that
            loses all its targets.
    """
    fitting: list[TokenRow] = []
    for number, row in enumerate(rows, start=1):
        kept = row if max_length is None else TokenRow(row.ids[:max_length], row.targets[:max_length])
        if len(kept.ids) > max_positions:
            raise BridgeError(
                "BAD_DATA",
                f"line {number}: {len(kept.ids)} tokens: expected at most {max_positions}, the model's positions",
                "Shorten the row, or set max_length to have long rows cut at their end.",
            )
        if kept.n_targets == 0:
            raise BridgeError("BAD_DATA", f"line {number}: no target token within max_length {max_length}")
        fitting.append(kept)
    return fitting


def data_ready(rows: list[TokenRow]) -> wire.DataReady:
    """Counts and digests of the data set as it is rendered, before anything is cut."""
    return wire.DataReady(
        rows=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        target_tokens=sum(row.n_targets for row in rows),
        longest_row_tokens=max(len(row.ids) for row in rows),
        token_ids_sha256=_digest(row.ids for row in rows),
        targets_sha256=_digest(row.targets for row in rows),
    )


def _digest(rows: Iterable[Iterable[int]]) -> str:
    """Sha256 over lines of decimal numbers separated by one space."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update((" ".join(str(int(number)) for number in row) + "\n").encode())
    return sha.hexdigest()
