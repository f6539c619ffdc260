"""Free memory of the host. Standard library only."""

import os
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that can still be allocated without swapping, within the limits of the process's cgroups.

    Args:
        root: Of the file system with ``proc`` and ``sys``.

    Returns:
        Bytes. Where the system does not say (outside Linux), half of the physical memory.
    """
    free = _meminfo(root / "proc" / "meminfo")
    if free is None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return max(0, min([free, *_cgroup_rooms(root)]))


def _meminfo(path: Path) -> int | None:
    """Source: proc_meminfo(5), ``MemAvailable``, in KiB."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_rooms(root: Path) -> list[int]:
    """Room below ``memory.max`` of the process's cgroup and of those above it.

    Pages of files that nobody uses count as used there, but are given back when memory is short.
    Source: Linux Documentation/admin-guide/cgroup-v2.rst, memory interface files.
    """
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    top = root / "sys" / "fs" / "cgroup"
    own = next((top / line[3:].lstrip("/") for line in lines if line.startswith("0::")), top)
    rooms: list[int] = []
    for group in [own, *own.parents]:
        if not group.is_relative_to(top):
            break
        try:
            limit = (group / "memory.max").read_text().strip()
            used = int((group / "memory.current").read_text())
            inactive = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        except (OSError, ValueError, KeyError):
            continue
        if limit != "max":
            rooms.append(int(limit) - used + int(inactive))
    return rooms
