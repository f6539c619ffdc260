"""``last/``: what resuming needs, without a pickle.

``state.json`` names one versioned ``state-<step>.safetensors`` and is replaced after that file is on disk, so at any
moment the pair is whole.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from . import _wire as wire
from .decoding import from_dict
from .errors import BridgeError
from .files import remove, remove_partials, write_file
from .machine import Machine

STATE_FILE = "state.json"
SCHEMA_VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """The content of ``state.json``."""

    schema_version: int
    fingerprint: str
    """sha256 of what the run is made of; another job must not go on from here"""
    step: int
    """optimizer steps done; with the seed it determines the next batch"""
    epoch: int
    """epoch of the next step, from 0"""
    cursor: int
    """rows of that epoch that are done"""
    file: str
    sha256: str
    prefix_cache: bool
    """whether rows enter the split one by one: a run keeps the mode it began in, or its last bits would change"""
    gradient_checkpointing: bool
    """whether it was on, perhaps only since memory ran short"""
    machine: Machine
    """on which this was written"""
    checkpoints: list[wire.Checkpoint]
    """those that were complete when this was written"""
    metrics: list[wire.TrainStep]
    """one a step: a driver that died may not have read the last of them"""
    held_out: list[wire.HeldOut]
    """as metrics"""

    def was_checkpointed_on(self, machine: Machine) -> bool:
        """Whether gradient checkpointing was on, and that tells something of the memory that there is now."""
        return self.gradient_checkpointing and self.machine.device == machine.device


def fingerprint(run: wire.TrainRun, ready: list[wire.DataReady], base_sha256: str) -> str:
    """Identity of a training run, without paths.

    Args:
        run: What is trained and how.
        ready: Of all its data sets.
        base_sha256: Identity of the base.
    """
    parts = {
        "lora": None if run.lora is None else asdict(run.lora),
        "training": asdict(run.training),
        "data": [[data.role, data.token_ids_sha256, data.targets_sha256] for data in ready],
        "base_sha256": base_sha256,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_state(folder: Path, record: StateRecord, tensors: dict[str, Any]) -> StateRecord:
    """Write the tensors, then the record that names them, then remove older tensors.

    Args:
        folder: ``last/``.
        record: Its ``file`` and ``sha256`` are filled in here.
        tensors: From ``snapshot.capture``.
    """
    from safetensors.torch import save

    folder.mkdir(exist_ok=True)
    data = save(tensors)
    name = f"state-{record.step}.safetensors"
    write_file(folder / name, data)
    whole = replace(record, file=name, sha256=hashlib.sha256(data).hexdigest())
    write_file(folder / STATE_FILE, f"{json.dumps(asdict(whole), indent=2, allow_nan=False)}\n".encode())
    for path in folder.glob("state-*.safetensors"):
        if path.name != name:
            remove(path)
    return whole


def load_state(folder: Path, expected_fingerprint: str) -> tuple[StateRecord, dict[str, Any]] | None:
    """Read what an interrupted run left, or None.

    Raises:
        BridgeError: ``BAD_DATA`` if it belongs to another job or version or is damaged.
    """
    from safetensors.torch import load

    path = folder / STATE_FILE
    remove_partials(folder)
    if not path.is_file():
        return None
    hint = "Remove the run's folder to train again from the start."
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        _check_version(value)
        record = from_dict(StateRecord, value, STATE_FILE)
        data = (folder / record.file).read_bytes()
    except (OSError, ValueError, BridgeError) as error:
        raise BridgeError("BAD_DATA", f"{path}: not a saved state: {error}", hint) from error
    if record.fingerprint != expected_fingerprint:
        raise BridgeError("BAD_DATA", f"{folder}: the saved state belongs to another job", hint)
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise BridgeError("BAD_DATA", f"{folder / record.file}: damaged: expected sha256 {record.sha256}", hint)
    return record, load(data)


def _check_version(value: object) -> None:
    """Before the rest is looked at, so that a person reads of versions and not of keys."""
    found = value.get("schema_version") if isinstance(value, dict) else None
    if found != SCHEMA_VERSION:
        raise BridgeError("BAD_DATA", f"expected schema_version {SCHEMA_VERSION}, got {found!r}")
