"""Checkpoints: safe writing, and what three hundred of them cost."""

import os
import threading
from pathlib import Path

import pytest
import torch
from conftest import LORA

from vivarium_bridge import _wire as wire
from vivarium_bridge import checkpoint as checkpoint_module
from vivarium_bridge import run as run_module
from vivarium_bridge.adapter import build_adapter
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.checkpoint import Syncer, save_adapter, verify_checkpoint
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.files import PARTIAL_PREFIX, file_ref, write_folder
from vivarium_bridge.models import load_base
from vivarium_bridge.train import run_train


def test_a_checkpoint_is_described_as_it_is(model_dir, tmp_path):
    model = build_adapter(load_base(model_dir, torch.bfloat16, torch.device("cpu")), LORA, seed=0)
    checkpoint = save_adapter(model, tmp_path, 3)
    assert checkpoint.files == [file_ref(path, tmp_path) for path in sorted((tmp_path / "checkpoint-3").iterdir())]
    verify_checkpoint(checkpoint, tmp_path)
    (tmp_path / "checkpoint-3" / "adapter_config.json").write_text("{}")
    with pytest.raises(BridgeError, match="missing or changed"):
        verify_checkpoint(checkpoint, tmp_path)


def test_a_disk_that_fails_late_is_noticed(tmp_path, monkeypatch):
    def fail(_folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "sync_tree", fail)
    syncer = Syncer(tmp_path)
    syncer.wait()
    syncer.add(wire.Checkpoint(step=0, dir="checkpoint-0", files=[]))
    with pytest.raises(OSError, match="No space left"):
        syncer.wait()
    syncer.close()


@pytest.mark.parametrize("synced", [True, False])
def test_a_folder_is_whole_or_not_there(tmp_path, synced):
    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "x", fail, synced=synced)
    assert list(tmp_path.iterdir()) == []

    def fill(folder: Path) -> None:
        (folder / "a").write_text("1")

    write_folder(tmp_path / "x", fill, synced=synced)
    assert [path.read_text() for path in (tmp_path / "x").iterdir()] == ["1"]


def test_three_hundred_checkpoints_are_cheap(make_job, recorder, monkeypatch):
    """Each file of one is written once, and the training's thread waits for no disk: a state does, and is rare."""
    written: list[str] = []
    synced: list[int] = []
    is_saving_state = False
    write_bytes, fsync, save_state = Path.write_bytes, os.fsync, run_module.Run._save_state

    def counted_write(self, data):
        written.append(f"{self.parent.name.removeprefix(PARTIAL_PREFIX)}/{self.name}")
        return write_bytes(self, data)

    def counted_sync(descriptor):
        if threading.current_thread() is threading.main_thread() and not is_saving_state:
            synced.append(descriptor)
        fsync(descriptor)

    def saving_state(self, rng):
        nonlocal is_saving_state
        is_saving_state = True
        save_state(self, rng)
        is_saving_state = False

    states: list[int] = []
    save = run_module.save_state
    monkeypatch.setattr(run_module, "save_state", lambda *args: states.append(args[1].step) or save(*args))
    monkeypatch.setattr(run_module.Run, "_save_state", saving_state)
    monkeypatch.setattr(Path, "write_bytes", counted_write)
    monkeypatch.setattr(os, "fsync", counted_sync)
    monkeypatch.setattr(run_module, "SAVE_EVERY_SECONDS", 1e9)
    run_train(make_job(r=1, max_steps=300, save_steps=1), recorder, Cancellation())
    assert len(recorder.of(wire.Checkpoint)) == 301
    assert sorted(written) == sorted(ref.path for event in recorder.of(wire.Checkpoint) for ref in event.files)
    assert synced == []
    assert states == [0, 300]


def test_the_state_is_saved_when_it_is_time(make_job, recorder, monkeypatch):
    states: list[int] = []
    save = run_module.save_state
    monkeypatch.setattr(run_module, "save_state", lambda *args: states.append(args[1].step) or save(*args))
    monkeypatch.setattr(run_module, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(run_module, "SAVE_COST_FRACTION", float("inf"))
    run_train(make_job(max_steps=5), recorder, Cancellation())
    assert states == [0, 1, 2, 3, 4, 5]
