"""The worker's end of the pipe: one line in, one step, one line out."""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


class Gate:
    """Waits before each step, so that workers take turns, and tells what the step took.

    stdout is kept for messages alone: what libraries print there goes to stderr.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._cpu = self._wall = 0.0

    def read(self) -> str:
        """The next line, or exit if the driver is gone."""
        line = sys.stdin.readline()
        if not line:
            sys.exit(1)
        return line

    def send(self, **message: Any) -> None:
        """Write a message."""
        self._out.write(json.dumps(message, allow_nan=False) + "\n")
        self._out.flush()

    def ready(self, **facts: Any) -> None:
        """Say that the next line starts the first step. What came before does not count."""
        forget_peak()
        self._cpu = time.process_time()
        self.send(type="ready", **facts)

    def wait(self) -> None:
        """Wait for this worker's turn."""
        self.read()
        self._wall = time.perf_counter()

    def done(self, loss: float) -> None:
        """Tell of a step: CPU seconds of all threads since the last one, so that no work between steps is missed."""
        cpu = time.process_time()
        self.send(type="step", loss=loss, cpu_seconds=cpu - self._cpu, wall_seconds=time.perf_counter() - self._wall)
        self._cpu = time.process_time()


def forget_peak() -> None:
    """Begin to count the peak of resident memory anew, where the system can. Source: proc(5), clear_refs."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Peak of resident memory since ``forget_peak``, or of the whole process where that is not known."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
