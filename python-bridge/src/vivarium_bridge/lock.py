"""The one right to write into a run's folder. Standard library only."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from . import _wire as wire
from .cancel import LAST_WORD_SECONDS, Cancellation
from .channel import Channel
from .errors import BridgeError

LOCK_FILE = ".bridge.lock"
"""Never removed: two processes could then each lock a file of this name."""
PATIENCE_SECONDS = 4 * LAST_WORD_SECONDS
"""A bridge whose driver died lives for ``LAST_WORD_SECONDS`` at most; the rest is for a slow disk."""
POLL_SECONDS = 0.1
NO_LOCKS_ERRNOS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What flock(2) says on network disks that are mounted without locks."""


@contextmanager
def folder_lock(
    folder: Path, channel: Channel, cancellation: Cancellation, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Hold the folder. The driver's own lock does not tell of a bridge that outlives its driver.

    The kernel frees the lock with the process, however that ends.

    Args:
        folder: Made if it is not there.
        channel: Told once if the folder is not free.
        cancellation: Ends the wait.
        patience_seconds: How long to wait.

    Raises:
        BridgeError: ``INTERNAL`` if another process holds it all that time; ``CANCELLED``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    with path.open("a", encoding="utf-8") as file:
        deadline = time.monotonic() + patience_seconds
        is_told = False
        while not _is_locked(file, channel):
            if not is_told:
                channel.info(f"{folder}: waiting for {_owner(path)}, which still writes here")
                is_told = True
            cancellation.check()
            if time.monotonic() >= deadline:
                raise BridgeError(
                    "INTERNAL",
                    f"{folder}: {_owner(path)} still writes here: expected it to end within {patience_seconds:g} s",
                    "It is a training process that outlived its driver. End it, then run again.",
                )
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _is_locked(file: TextIO, channel: Channel) -> bool:
    """Try to lock, once. A disk that knows no locks does not stop the work."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS_ERRNOS:
            raise
        channel.send(
            wire.Log(
                level="warning",
                message=f"{file.name}: this disk has no locks ({error.strerror}):"
                " after a crash, wait half a minute before running again",
            )
        )
    return True


def _owner(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() or "another process"
