"""What can go wrong, by code, and how any exception becomes the terminal ``failure`` event. Standard library only."""

import errno
import traceback
from typing import Literal

from . import _wire as wire

Code = Literal[
    "BAD_JOB",
    "BAD_DATA",
    "BAD_MODEL",
    "NON_FINITE_LOSS",
    "OUT_OF_MEMORY",
    "DISK_FULL",
    "CANCELLED",
    "INTERNAL",
]

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, over quota, above the largest file size."""

DISK_FULL_HINT = "Free some space and run again: it goes on from the last saved step."

MAX_TRACEBACK_CHARS = 20_000
"""Keeps the failure far below the longest line that the driver reads (1 MiB)."""

OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""Lower-cased: how torch's CPU and CUDA allocators put it where they raise a plain RuntimeError, and how it puts it
where cuBLAS or cuDNN finds no room for its own workspace.

Source: torch ``aten/src/ATen/cuda/Exceptions.cpp`` ``_cublasGetErrorEnum``; cuDNN ``cudnnGetErrorString``.
"""


class BridgeError(Exception):
    """A failure that the driver can name: a code, a sentence and, where there is one, what to do."""

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(code, message, hint)
        self.code: Code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


def failure_of(error: BaseException) -> wire.Failure:
    """Turn what was raised into the event that ends the job."""
    code, message, hint = _classify(error)
    known = isinstance(error, BridgeError)
    text = None if known else "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARS:]
    return wire.Failure(code=code, message=message, hint=hint, traceback=text)


def _classify(error: BaseException) -> tuple[Code, str, str | None]:
    if isinstance(error, BridgeError):
        return error.code, error.message, error.hint
    if isinstance(error, KeyboardInterrupt):
        return "CANCELLED", "cancelled by an interrupt", None
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        where = f" ({error.filename})" if error.filename else ""
        return "DISK_FULL", f"cannot write{where}: {error.strerror}", DISK_FULL_HINT
    if any(f"(os error {number})" in str(error) for number in DISK_FULL_ERRNOS):  # how safetensors puts it
        return "DISK_FULL", f"cannot write: {error}", DISK_FULL_HINT
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)
    ):
        hint = (
            "Lower per_device_train_batch_size and raise gradient_accumulation_steps by the same factor:"
            " the result is the same up to rounding."
        )
        return "OUT_OF_MEMORY", f"out of memory: {str(error).splitlines()[0] if str(error) else 'host'}", hint
    return "INTERNAL", f"{type(error).__name__}: {error}", None
