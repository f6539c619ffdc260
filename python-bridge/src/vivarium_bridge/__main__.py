"""One job: claim the event descriptor, greet, read the job, do it, end with exactly one terminal event."""

import os
import platform
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version

from . import _wire as wire
from .cancel import Cancellation
from .channel import Channel, read_job
from .errors import BridgeError, failure_of

REPORTED_PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy", "bitsandbytes")


def main() -> int:
    """Run the job of this process.

    Returns:
        The exit code: 0 after a result, 1 after a failure.
    """
    cancellation = Cancellation()
    channel = Channel.from_env(cancellation)
    try:
        cancellation.watch_sigterm()
        channel.send(hello())
        job = read_job()
        cancellation.watch_stdin()
        channel.send(run(job, channel, cancellation))
    except BaseException as error:  # whatever it is, the driver hears of it
        channel.send(failure_of(error))  # first: on a full disk the log cannot be written
        traceback.print_exc()
        return 1
    return 0


def hello() -> wire.Hello:
    """Who does the work. Reads versions from the packages' metadata: importing them takes seconds."""
    from .models import device_name

    return wire.Hello(
        schema_sha256=wire.SCHEMA_SHA256,
        pid=os.getpid(),
        runtime=f"{platform.python_implementation()} {platform.python_version()}",
        packages={name: found for name in REPORTED_PACKAGES if (found := _version(name)) is not None},
        device=device_name(),
    )


def run(job: wire.Job, channel: Channel, cancellation: Cancellation) -> wire.Event:
    """Do the job.

    Raises:
        BridgeError: ``BAD_JOB`` if it is one for the other kind of child process.
    """
    if isinstance(job, wire.TrainJob):
        from .train import run_train

        return run_train(job, channel, cancellation)
    if isinstance(job, wire.MergeJob):
        from .merge import run_merge

        return run_merge(job, channel, cancellation)
    if isinstance(job, wire.ScoreJob):
        from .score import run_score

        return run_score(job, channel, cancellation)
    raise BridgeError("BAD_JOB", f"expected a train, merge or score job, got {job.type}: llama.cpp runs that one")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
