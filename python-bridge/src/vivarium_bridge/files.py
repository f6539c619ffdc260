"""Files that are either whole or not there. Standard library only."""

import hashlib
import os
import shutil
from pathlib import Path

from . import _wire as wire

PARTIAL_PREFIX = ".part-"
"""What an unfinished file or folder is called; left over after a crash, removed at the next start."""


def write_file(path: Path, data: bytes) -> None:
    """Write under another name, sync, rename: a reader sees the old content or the new one, never a part."""
    partial = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    try:
        _write_synced(partial, data)
    except OSError:
        remove(partial)
        raise
    os.replace(partial, path)
    sync_folder(path.parent)


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Make a folder with these files, or none at all. One that is already there is replaced."""
    partial = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    remove(partial)
    partial.mkdir()
    try:
        for name, data in files.items():
            _write_synced(partial / name, data)
        sync_folder(partial)
    except OSError:
        remove(partial)  # what fills the disk is of no use to anybody
        raise
    remove(path)
    os.rename(partial, path)
    sync_folder(path.parent)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the renames in a folder outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Remove what an interrupted write left."""
    for path in folder.glob(f"{PARTIAL_PREFIX}*"):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_ref(path: Path, root: Path) -> wire.FileRef:
    """Size and sha256 of a file, named relative to ``root``."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return wire.FileRef(path=path.relative_to(root).as_posix(), sha256=digest, bytes=path.stat().st_size)
