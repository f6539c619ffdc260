"""Checkpoints: folders with PEFT's own file names, that plain PEFT loads, or whole models that transformers loads."""

import hashlib
import json
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import _wire as wire
from .errors import BridgeError
from .files import file_ref, remove, sync, sync_tree, write_folder
from .model_folder import fill_model_folder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FOLDER = re.compile(r"checkpoint-(\d+)")


def save_checkpoint(model: Any, run_dir: Path, step: int, trained_base: str | None) -> wire.Checkpoint:
    """``save_model`` for a base of which all weights were trained, by its folder; else ``save_adapter``."""
    if trained_base is None:
        return save_adapter(model, run_dir, step)
    return save_model(model, run_dir, step, trained_base)


def save_adapter(model: Any, run_dir: Path, step: int) -> wire.Checkpoint:
    """Write the adapter as ``checkpoint-<step>/``, whole or not at all, and describe it.

    Not synced: ``Syncer.wait`` comes before a record that relies on it.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    (config,) = model.peft_config.values()
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    files = {CONFIG_FILE: _render_config(config), WEIGHTS_FILE: save(weights, {"format": "pt"})}

    def fill(folder: Path) -> None:
        for name, data in files.items():
            (folder / name).write_bytes(data)

    name = f"checkpoint-{step}"
    write_folder(run_dir / name, fill, synced=False)
    return wire.Checkpoint(step=step, dir=name, files=[_ref(f"{name}/{file}", data) for file, data in files.items()])


def save_model(model: Any, run_dir: Path, step: int, base_model_dir: str) -> wire.Checkpoint:
    """Write the whole model as ``checkpoint-<step>/``; otherwise as ``save_adapter``."""
    folder = run_dir / f"checkpoint-{step}"
    write_folder(folder, lambda partial: fill_model_folder(partial, model, base_model_dir), synced=False)
    files = [file_ref(path, run_dir) for path in sorted(folder.iterdir())]
    return wire.Checkpoint(step=step, dir=folder.name, files=files)


class Syncer:
    """Makes checkpoints outlast a power cut while the next steps are computed: a disk may take longer than a step."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._pool = ThreadPoolExecutor(1)
        self._waiting: list[Future[None]] = []

    def add(self, checkpoint: wire.Checkpoint) -> None:
        """Begin with one."""
        self._waiting.append(self._pool.submit(sync_tree, self._run_dir / checkpoint.dir))

    def wait(self) -> None:
        """Come back when all are on disk.

        Raises:
            OSError: If one of them is not.
        """
        if self._waiting:
            for future in self._waiting:
                future.result()
            sync(self._run_dir)
            self._waiting = []

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()


def _ref(path: str, data: bytes) -> wire.FileRef:
    return wire.FileRef(path=path, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _render_config(config: Any) -> bytes:
    """What ``PeftConfig.save_pretrained`` writes, with sets in a fixed order and the base's name for its path."""
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    values["inference_mode"] = True
    values["base_model_name_or_path"] = Path(os.path.abspath(config.base_model_name_or_path)).name
    return f"{json.dumps(values, indent=2, sort_keys=True)}\n".encode()


def verify_checkpoint(checkpoint: wire.Checkpoint, run_dir: Path) -> None:
    """Compare a checkpoint on disk with what was recorded of it.

    Raises:
        BridgeError: ``BAD_DATA`` if a file is missing or has other bytes.
    """
    for expected in checkpoint.files:
        path = run_dir / expected.path
        if not path.is_file() or file_ref(path, run_dir) != expected:
            raise BridgeError(
                "BAD_DATA",
                f"{path}: missing or changed since it was written: expected sha256 {expected.sha256}",
                "Put it back, or remove the run's folder to train again from the start.",
            )


def remove_other_checkpoints(run_dir: Path, kept: list[wire.Checkpoint]) -> None:
    """Remove the checkpoints of steps that will be run again."""
    names = {checkpoint.dir for checkpoint in kept}
    for path in run_dir.iterdir():
        if FOLDER.fullmatch(path.name) and path.name not in names:
            remove(path)
