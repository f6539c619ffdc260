"""The data of a run as token rows, and the digests by which the driver compares them with its own."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import _wire as wire
from .errors import BridgeError
from .masking import Encode, TokenRow, tokenise_segments
from .rendering import CLEAN, Message, Render, RowError, segment_conversation

Role = Literal["train", "held_out", "kl"]
HELD_OUT_KEY = 2**63
"""Stands where ``epoch_order`` has the epoch, so that no epoch's order is the one that chose the held-out rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The rows of a run, cut to ``max_length``, and what the driver is told of them."""

    train: list[TokenRow]
    held_out: list[TokenRow]
    kl: list[TokenRow]
    ready: list[wire.DataReady]


def load_data(
    run: wire.TrainRun, render: Render, encode: Encode, eos_token: str, max_positions: int, tell: Callable[[Any], None]
) -> RunData:
    """Load all data sets of a run.

    Args:
        run: Names the files.
        render: The chat template with the run's arguments.
        encode: Text to token ids.
        eos_token: The token at which inference stops.
        max_positions: What the model was made for, in tokens.
        tell: Called with the ``DataReady`` of each file before anything is cut.

    Raises:
        BridgeError: ``BAD_DATA`` naming the row.
    """
    ready: list[wire.DataReady] = []
    max_length = run.training.max_length

    def load(path: str | None, role: Role) -> list[TokenRow]:
        if path is None:
            return []
        rows = load_rows(Path(path), render, encode, eos_token, run.rendering)
        ready.append(data_ready(rows, role, max_length))
        tell(ready[-1])
        return cut_rows(rows, max_length, max_positions, Path(path).name)

    rows = load(run.dataset_file, "train")
    train, held_out = split_rows(len(rows), run.training.test_size, run.training.seed)
    return RunData(
        train=[rows[index] for index in train],
        held_out=load(run.eval_dataset_file, "held_out") or [rows[index] for index in held_out],
        kl=load(run.kl_dataset_file, "kl"),
        ready=ready,
    )


def split_rows(n_rows: int, test_size: float, seed: int) -> tuple[list[int], list[int]]:
    """Which rows are trained on and which are held out: a pure function of its arguments, disjoint, in file order.

    Rows are sorted by 64 raw bits each of Philox4x64-10 with key ``(seed, 2**63)``, and the first
    ``ceil(test_size * n_rows)`` are held out.

    Source: the number is that of scikit-learn's and Hugging Face's ``train_test_split``; the bits are as in
    ``order.epoch_order``.

    Args:
        n_rows: Of the data set's file.
        test_size: Part of them, below 1.
        seed: ``training.seed``.

    Raises:
        BridgeError: ``BAD_DATA`` if no row would be left to train on.
    """
    import numpy as np

    n_held_out = math.ceil(test_size * n_rows)
    if n_held_out >= n_rows:
        raise BridgeError("BAD_DATA", f"test_size {test_size} holds out {n_held_out} of {n_rows} rows: none is left")
    bits: Any = np.random.Philox(key=np.array([seed, HELD_OUT_KEY], dtype=np.uint64)).random_raw(n_rows)
    held_out = sorted(np.argsort(bits, kind="stable")[:n_held_out].tolist())
    return sorted(set(range(n_rows)) - set(held_out)), held_out


def load_rows(
    path: Path, render: Render, encode: Encode, eos_token: str, rendering: wire.Rendering = CLEAN
) -> list[TokenRow]:
    """Read, render and tokenise a data set, in the order of the file; blank lines are no rows.

    Raises:
        BridgeError: ``BAD_DATA`` with ``file:line`` for the first row that cannot be trained on.
    """
    if not path.is_file():
        raise BridgeError("BAD_DATA", f"{path}: no such file")
    rows: list[TokenRow] = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                segments = segment_conversation(parse_messages(line), render, eos_token, rendering)
                rows.append(tokenise_segments(segments, encode))
            except ValueError as error:
                hint = error.hint if isinstance(error, RowError) else None
                raise BridgeError("BAD_DATA", f"{path.name}:{number}: {error}", hint) from error
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


def cut_rows(rows: list[TokenRow], max_length: int | None, max_positions: int, name: str) -> list[TokenRow]:
    """Cut rows at their end to ``max_length`` tokens; null cuts nothing.

    Args:
        rows: In the order of the file.
        max_length: ``training.max_length``.
        max_positions: What the model was made for, in tokens.
        name: Of the file, for messages.

    Raises:
        BridgeError: ``BAD_DATA`` naming the row that is still longer than the model's positions, or that
            loses all its targets.
    """
    fitting: list[TokenRow] = []
    for number, row in enumerate(rows, start=1):
        kept = row if max_length is None else TokenRow(row.ids[:max_length], row.targets[:max_length])
        if len(kept.ids) > max_positions:
            raise BridgeError(
                "BAD_DATA",
                f"{name}: row {number}: {len(kept.ids)} tokens:"
                f" expected at most {max_positions}, the model's positions",
                "Shorten the row, or set max_length to have long rows cut at their end.",
            )
        if kept.n_targets == 0:
            raise BridgeError("BAD_DATA", f"{name}: row {number}: no target token within max_length {max_length}")
        fitting.append(kept)
    return fitting


def data_ready(rows: list[TokenRow], role: Role, max_length: int | None) -> wire.DataReady:
    """Counts and digests of a data set as it is rendered, before anything is cut, and what ``max_length`` will cut."""
    cut = [] if max_length is None else [len(row.ids) - max_length for row in rows if len(row.ids) > max_length]
    return wire.DataReady(
        role=role,
        rows=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        target_tokens=sum(row.n_targets for row in rows),
        longest_row_tokens=max(len(row.ids) for row in rows),
        truncated_rows=len(cut),
        truncated_tokens=sum(cut),
        token_ids_sha256=_digest(row.ids for row in rows),
        targets_sha256=_digest(row.targets for row in rows),
    )


def _digest(rows: Iterable[Iterable[int]]) -> str:
    """Sha256 over lines of decimal numbers separated by one space."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update((" ".join(str(int(number)) for number in row) + "\n").encode())
    return sha.hexdigest()
