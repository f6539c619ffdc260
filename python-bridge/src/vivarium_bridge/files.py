"""Files that are either whole or not there. Standard library only."""

import hashlib
import os
import shutil
from collections.abc import Callable
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
    sync(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None], *, synced: bool = True) -> None:
    """Make a folder as ``fill`` fills it, or none at all. One that is already there is replaced.

    Args:
        path: Of the folder.
        fill: Called with an empty folder under another name.
        synced: Whether the folder outlasts a power cut from here on; if not, ``sync_tree`` is still to be called.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    remove(partial)
    partial.mkdir()
    try:
        fill(partial)
        if synced:
            sync_tree(partial)
    except BaseException:
        remove(partial)  # what fills the disk is of no use to anybody
        raise
    remove(path)
    os.rename(partial, path)
    if synced:
        sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Make the files of a folder, and their names, outlast a power cut."""
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Make the renames in a folder, or the bytes of a file, outlast a power cut."""
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
