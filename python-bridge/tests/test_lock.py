"""One writer a folder."""

import errno
import fcntl
import os
import time
from socket import gethostname

import pytest

from vivarium_bridge import _wire as wire
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.lock import folder_lock

ME = f"process {os.getpid()} on {gethostname()}"


def test_a_free_folder_is_made_and_held_without_a_word(tmp_path, recorder):
    folder = tmp_path / "new" / "run"
    for _ in range(2):
        with folder_lock(folder, recorder, Cancellation()):
            assert (folder / ".bridge.lock").read_text() == f"{ME}\n"
    assert recorder.events == []


def test_a_held_folder_is_waited_for_and_then_given_up(tmp_path, recorder):
    with folder_lock(tmp_path, recorder, Cancellation()):
        with pytest.raises(BridgeError) as caught, folder_lock(tmp_path, recorder, Cancellation(), 0.3):
            pytest.fail("two hold it")
    assert caught.value.message == f"{tmp_path}: {ME} still writes here: expected it to end within 0.3 s"
    assert caught.value.hint == "It is a training process that outlived its driver. End it, then run again."
    assert recorder.events == [wire.Log(level="info", message=f"{tmp_path}: waiting for {ME}, which still writes here")]
    with folder_lock(tmp_path, recorder, Cancellation(), 0):
        pass


def test_a_cancel_ends_the_wait(tmp_path, recorder):
    cancellation = Cancellation()
    cancellation.set()
    with folder_lock(tmp_path, recorder, Cancellation()):
        started = time.monotonic()
        with pytest.raises(BridgeError) as caught, folder_lock(tmp_path, recorder, cancellation):
            pytest.fail("two hold it")
    assert caught.value.code == "CANCELLED"
    assert time.monotonic() - started < 5


def test_a_disk_without_locks_is_told_of_and_used(tmp_path, recorder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with folder_lock(tmp_path, recorder, Cancellation()):
        pass
    (event,) = recorder.events
    assert event.level == "warning"
    assert "this disk has no locks (Function not implemented)" in event.message
