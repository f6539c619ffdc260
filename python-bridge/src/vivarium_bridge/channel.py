"""The one module that touches the event descriptor. Standard library only."""

import json
import os
import threading
from dataclasses import asdict
from typing import TextIO

from . import _wire as wire
from .cancel import STDIN_FD, Cancellation
from .decoding import job_from_dict
from .errors import BridgeError


class Channel:
    """Writes events to the driver, one JSON object a line.

    Prints of other libraries go to stdout and stderr and cannot reach this stream.
    """

    def __init__(self, stream: TextIO, cancellation: Cancellation) -> None:
        self._stream = stream
        self._cancellation = cancellation
        self._lock = threading.Lock()

    @classmethod
    def from_env(cls, cancellation: Cancellation) -> "Channel":
        """Open the descriptor that the driver names in ``BRIDGE_EVENT_FD``.

        Raises:
            KeyError: If the variable is unset, that is, no driver started this process.
        """
        fd = int(os.environ["BRIDGE_EVENT_FD"])
        os.set_inheritable(fd, False)  # data-loader workers must not hold it open
        return cls(os.fdopen(fd, "w", encoding="utf-8", buffering=1, newline="\n"), cancellation)

    def send(self, event: wire.Event) -> None:
        """Send one event. When the driver is gone this cancels the job, which then saves and ends.

        Raises:
            ValueError: If a number is NaN or infinite: ``JSON.parse`` on the other side rejects both.
        """
        line = json.dumps(asdict(event), allow_nan=False) + "\n"
        try:
            with self._lock:
                self._stream.write(line)
        except (BrokenPipeError, ConnectionResetError):
            self._cancellation.set()

    def info(self, message: str) -> None:
        """Tell a person what is being done."""
        self.send(wire.Log(level="info", message=message))


def read_job() -> wire.Job:
    """Read the job, the first line of stdin.

    Raises:
        BridgeError: ``BAD_JOB`` if it is not a complete line of JSON or no job; ``CANCELLED`` if stdin ends first.
    """
    line = b""
    while not line.endswith(b"\n"):
        # Unbuffered: whatever follows belongs to the thread that waits for the end of stdin.
        chunk = os.read(STDIN_FD, 65536)
        if not chunk:
            raise BridgeError("CANCELLED", "stdin ended before the job")
        line += chunk
    try:
        value = json.loads(line)
    except ValueError as error:
        raise BridgeError("BAD_JOB", f"the job is not JSON: {error}") from error
    return job_from_dict(value)
