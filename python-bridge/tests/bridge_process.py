"""Runs the bridge as the driver does: a process of its own, the job on stdin, events on a descriptor."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

SRC = Path(__file__).parent.parent / "src"


class BridgeProcess:
    def __init__(self, job: Any, preexec: Callable[[], None] | None = None) -> None:
        reader, writer = os.pipe()
        env = {**os.environ, "BRIDGE_EVENT_FD": str(writer), "PYTHONPATH": str(SRC)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vivarium_bridge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[writer],
            env=env,
            preexec_fn=preexec,
        )
        os.close(writer)
        self._events = os.fdopen(reader, encoding="utf-8")
        line = job if isinstance(job, str) else json.dumps(asdict(job))
        self._stdin.write(f"{line}\n".encode())
        self._stdin.flush()

    @property
    def _stdin(self) -> Any:
        return self.process.stdin

    def end_stdin(self) -> None:
        self._stdin.close()

    def events(self):
        for line in self._events:
            yield json.loads(line)

    def next(self, type: str) -> dict[str, Any]:
        """The next event of a type."""
        return next(event for event in self.events() if event["type"] == type)

    def rest(self) -> list[dict[str, Any]]:
        """All further events, and the exit code as a last one."""
        events = list(self.events())
        assert self.process.stdout is not None
        output = self.process.stdout.read().decode()
        code = self.process.wait()
        return [*events, {"type": "exit", "code": code, "output": output}]
