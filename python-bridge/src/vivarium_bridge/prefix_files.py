"""Hidden states on disk: one file a row, believed only if every byte is as it should be."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

PARTIAL_PREFIX = ".partial-"
ENTRY_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
SPACE_NAME = re.compile(r"[0-9a-f]{64}")
TENSOR_NAME = "hidden_states"
SAFETENSORS_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
"""Source: safetensors ``bindings/python/py_src/safetensors/torch.py``, ``_TYPES``."""
HEADER_BYTES = 512
"""Of every entry, so that its size is known before it is written."""
RESCAN_SECONDS = 60.0
"""Other processes write into and remove from the same folder: its size is measured anew after so long."""
RESERVED_BYTES = 2**30
"""Left free on the disk for checkpoints and states, which a run cannot do without."""


class PrefixFiles:
    """A folder of entries, shared with other processes: ``<space>/<row>.safetensors``.

    An entry is written under another name and renamed, without waiting for the disk: one that a power cut damages is
    found by its hash. Nothing here ever raises: a folder that cannot be used is as good as none.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.bytes = 0
        self._folder = folder
        self._warn = warn
        self._is_writable = True
        self._is_scanned = False
        self._used: set[Path] = set()
        self._stale: deque[tuple[Path, int]] = deque()
        self._scanned_at = 0.0

    def read(self, space: str, row: str, dtype: Any, shape: tuple[int, int]) -> tuple[Any, bool]:
        """Read an entry.

        Args:
            space: What all entries beside it have in common, as sha256.
            row: Of the token ids, as sha256.
            dtype: That it must have.
            shape: That it must have, ``(T, H)``.

        Returns:
            The tensor on the host, or None; and whether a file was found that is not what it should be. It is removed.
        """
        import torch

        path = self._path(space, row)
        try:
            data = bytearray(path.read_bytes())
        except OSError:
            return None, False
        size = shape[0] * shape[1] * dtype.itemsize
        digest = hashlib.sha256(memoryview(data)[-size:]).hexdigest()
        header = encode_header(space, row, dtype, shape, digest)
        if len(data) != len(header) + size or data[: len(header)] != header:
            self._remove(path, len(data))
            return None, True
        with suppress(OSError):
            os.utime(path)  # the oldest entries go first
        self._used.add(path)
        return torch.frombuffer(data, dtype=dtype, offset=len(header)).view(shape), False

    def write(self, space: str, row: str, hidden: Any) -> None:
        """Write the entry of a row, ``[T, H]``. The caller has made room."""
        import torch

        if not self._is_writable:
            return
        payload = hidden.detach().cpu().contiguous().view(torch.uint8).numpy().data.cast("B")
        header = encode_header(space, row, hidden.dtype, tuple(hidden.shape), hashlib.sha256(payload).hexdigest())
        path = self._path(space, row)
        size = len(header) + len(payload)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            disk = os.statvfs(path.parent)
            if disk.f_bavail * disk.f_frsize < size + RESERVED_BYTES:
                raise OSError(f"less than {RESERVED_BYTES >> 30} GiB would stay free")
            is_written = _write_whole(path, header, payload)
        except OSError as error:
            self._is_writable = False
            reason = error.strerror or error
            self._warn(f"{self._folder}: the prefix cache writes no more to disk: {reason}. The run goes on without.")
            return
        if is_written:
            self.bytes += size
            self._used.add(path)

    def shrink(self, limit: int) -> bool:
        """Remove entries that this process did not use, the oldest first, until the folder holds ``limit`` bytes.

        Returns:
            Whether it does.
        """
        self._measure()
        while self.bytes > limit and self._stale:
            path, size = self._stale.popleft()
            if path not in self._used:
                self._remove(path, size)
        return self.bytes <= limit

    def forget_use(self) -> None:
        """Let go of what was used: another model or split is at work now."""
        self._used.clear()
        self._is_scanned = False

    def _measure(self) -> None:
        """Look at the folder, unless it was done not long ago, and clear away what killed processes left."""
        now = time.monotonic()
        if self._is_scanned and now - self._scanned_at < RESCAN_SECONDS:
            return
        found: list[tuple[float, Path, int]] = []
        with suppress(OSError):
            for space in [entry for entry in os.scandir(self._folder) if SPACE_NAME.fullmatch(entry.name)]:
                with suppress(OSError):
                    found += _entries(Path(space.path))
        self.bytes = sum(size for _, _, size in found)
        self._stale = deque((path, size) for _, path, size in sorted(found) if path not in self._used)
        self._is_scanned = True
        self._scanned_at = now

    def _path(self, space: str, row: str) -> Path:
        return self._folder / space / f"{row}.safetensors"

    def _remove(self, path: Path, size: int) -> None:
        with suppress(OSError):
            path.unlink()
            self.bytes = max(0, self.bytes - size)


def encode_header(space: str, row: str, dtype: Any, shape: tuple[int, ...], sha256: str) -> bytes:
    """The one header that an entry may have: comparing it compares key, dtype, shape and hash at once.

    Source: safetensors README, "Format": the length in 8 bytes, JSON that may end in spaces, the data.
    """
    size = dtype.itemsize
    for length in shape:
        size *= length
    content = {
        "__metadata__": {"space": space, "row": row, "sha256": sha256},
        TENSOR_NAME: {
            "dtype": SAFETENSORS_DTYPES[str(dtype).removeprefix("torch.")],
            "shape": list(shape),
            "data_offsets": [0, size],
        },
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    text = text.ljust(HEADER_BYTES - 8)
    return len(text).to_bytes(8, "little") + text


def _write_whole(path: Path, header: bytes, payload: Any) -> bool:
    """Write under a name of its own and rename. The lock tells others that the writer lives.

    Returns:
        False if another process took the file for a leftover, between its making and its lock.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            _lock(file)
            file.write(header)
            file.write(payload)
            file.flush()
            os.replace(partial, path)
    except FileNotFoundError:
        return False
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
    return True


def _entries(space: Path) -> list[tuple[float, Path, int]]:
    """Age, path and size of the entries of one space."""
    found: list[tuple[float, Path, int]] = []
    for entry in os.scandir(space):
        if entry.name.startswith(PARTIAL_PREFIX):
            with suppress(OSError):
                _remove_if_left_over(Path(entry.path))
        elif ENTRY_NAME.fullmatch(entry.name):
            with suppress(OSError):
                stat = entry.stat()
                found.append((stat.st_mtime, Path(entry.path), stat.st_size))
    return found


def _remove_if_left_over(partial: Path) -> None:
    """The kernel frees the lock of a dead writer, whatever its process id is now and on whatever machine it was."""
    with partial.open("rb") as file:
        if _lock(file):
            partial.unlink()


def _lock(file: BinaryIO) -> bool:
    """Whether the file could be locked; not on a disk that knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
