"""When to stop: end of stdin, SIGTERM, or nobody left to read the events. Standard library only."""

import os
import signal
import threading
import time

from .errors import BridgeError

STDIN_FD = 0
LAST_WORD_SECONDS = 15.0
"""How long the process outlives the end of stdin at most. Longer than the driver's own patience (10 s): it is for the
case in which the driver is dead and nobody else would end a process that hangs in a library."""


class Cancellation:
    """A flag that the loops look at between two pieces of work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask for the stop."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            BridgeError: ``CANCELLED``.
        """
        if self.is_set():
            raise BridgeError("CANCELLED", "cancelled by the driver")

    def watch_stdin(self) -> None:
        """Cancel at the end of stdin: that is the driver's cancel message, and what a dead driver looks like."""
        threading.Thread(target=self._wait_for_end_of_stdin, daemon=True).start()

    def watch_sigterm(self) -> None:
        """Treat SIGTERM, a cluster's way to say that time is up, as a cancel."""
        signal.signal(signal.SIGTERM, lambda *_: self.set())

    def _wait_for_end_of_stdin(self) -> None:
        # os.read, not sys.stdin: a thread that blocks in a buffered reader aborts the interpreter at exit.
        while os.read(STDIN_FD, 4096):
            pass
        self.set()
        time.sleep(LAST_WORD_SECONDS)
        os._exit(1)
