"""Checkpoints: folders with PEFT's own file names, that plain PEFT loads."""

import json
import os
import re
from pathlib import Path
from typing import Any

from . import _wire as wire
from .errors import BridgeError
from .files import file_ref, remove, write_folder

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FOLDER = re.compile(r"checkpoint-(\d+)")


def save_checkpoint(model: Any, run_dir: Path, step: int) -> wire.Checkpoint:
    """Write ``checkpoint-<step>/``, whole or not at all, and describe it."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    (config,) = model.peft_config.values()
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    folder = run_dir / f"checkpoint-{step}"
    write_folder(folder, {CONFIG_FILE: _render_config(config), WEIGHTS_FILE: save(weights, {"format": "pt"})})
    files = [file_ref(folder / name, run_dir) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return wire.Checkpoint(step=step, dir=folder.name, files=files)


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
