"""The data set as token rows, and the digests by which the driver compares them with its own."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import _wire as wire
from .errors import BridgeError
from .masking import Encode, TokenRow, check_targets, tokenise_segments
from .rendering import Message, Render, segment_conversation


def load_rows(job: wire.TrainJob, render: Render, encode: Encode, eos_token: str, max_positions: int) -> list[TokenRow]:
    """Read, render and tokenise the data set, in the order of the file.

    A row longer than ``training.max_length`` is cut at its end. With null, a row longer than the model's positions is
    an error instead.

    Raises:
        BridgeError: ``BAD_DATA`` with ``file:line`` for the first row that cannot be trained on.
    """
    path = Path(job.dataset_file)
    if not path.is_file():
        raise BridgeError("BAD_DATA", f"{path}: no such file")
    rows: list[TokenRow] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                segments = segment_conversation(parse_messages(line), render, eos_token)
                row = cut(tokenise_segments(segments, encode), job.training.max_length)
                if len(row.ids) > max_positions:
                    raise ValueError(f"{len(row.ids)} tokens: expected at most {max_positions}, the model's positions")
            except ValueError as error:
                raise BridgeError("BAD_DATA", f"{path.name}:{number}: {error}") from error
            rows.append(row)
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


def cut(row: TokenRow, max_length: int | None) -> TokenRow:
    """Keep the first ``max_length`` tokens.

    Raises:
        ValueError: If no target is among them.
    """
    if max_length is None or len(row.ids) <= max_length:
        return row
    return check_targets(TokenRow(row.ids[:max_length], row.targets[:max_length]))


def data_ready(rows: list[TokenRow]) -> wire.DataReady:
    """Counts and digests of the data set as it will be trained on."""
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
