"""Runs the bridge as the driver does: a process of its own, the job on stdin, events on a descriptor."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from typing import Any


class BridgeProcess:
    """A fork of this process: it has imported torch already, which takes ten seconds otherwise."""

    def __init__(self, job: Any, prepare: Callable[[], None] = lambda: None) -> None:
        job_reader, self._stdin = os.pipe()
        reader, event_writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._stdin)
            os.close(reader)
            os.dup2(job_reader, 0)
            run_main(event_writer, prepare)
        os.close(job_reader)
        os.close(event_writer)
        self._events = os.fdopen(reader, encoding="utf-8")
        line = job if isinstance(job, str) else json.dumps(asdict(job))
        os.write(self._stdin, f"{line}\n".encode())

    def end_stdin(self) -> None:
        os.close(self._stdin)

    def stop_reading(self) -> None:
        self._events.close()

    def events(self):
        for line in self._events:
            yield json.loads(line)

    def next(self, type: str) -> dict[str, Any]:
        """The next event of a type."""
        return next(event for event in self.events() if event["type"] == type)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """The exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def rest(self) -> list[dict[str, Any]]:
        """All further events, and the exit code as a last one."""
        return [*self.events(), {"type": "exit", "code": self.wait()}]


def run_main(event_fd: int, prepare: Callable[[], None]) -> None:
    """The child's side; never returns."""
    code = 70
    try:
        from vivarium_bridge.__main__ import main

        os.environ["BRIDGE_EVENT_FD"] = str(event_fd)
        prepare()
        code = main()
    finally:
        os._exit(code)
