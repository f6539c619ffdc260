"""Hidden states that enter the split, kept between steps, runs and jobs."""

import hashlib
import json
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import _wire as wire
from .prefix_files import HEADER_BYTES, PrefixFiles
from .ram import available_bytes

SCHEMA_VERSION = 1
"""Of what an entry means; part of its key."""
RAM_SHARE = 0.5
"""Of the memory that would be free without the cache: the rest is for activations and for others."""
RAM_CHECK_SECONDS = 1.0


class Mark(NamedTuple):
    """Counts at one moment."""

    hits: int
    misses: int
    rejected: int


class PrefixCache:
    """Hidden states of rows: in memory first, then on disk, within ``max_bytes`` together.

    What it holds never changes a result, only how long that takes: a row that finds no room is computed again each
    time, alone as the first time. So nothing that is in use makes room for something else; what earlier runs and jobs
    left does, the oldest first.
    """

    def __init__(
        self,
        base_sha256: str,
        max_bytes: int,
        folder: Path,
        warn: Callable[[str], None],
        ram_share: float = RAM_SHARE,
    ) -> None:
        self._base_sha256 = base_sha256
        self._ram_share = ram_share
        self._max_bytes = max_bytes
        self._files = PrefixFiles(folder, warn)
        self._memory: dict[tuple[str, str], Any] = {}
        self._memory_bytes = 0
        self._hits = self._misses = self._rejected = 0
        self._space = ""
        self._ram_bytes = 0
        self._ram_checked_at = float("-inf")

    def mark(self) -> Mark:
        """The counts of now, for ``use_since``."""
        return Mark(self._hits, self._misses, self._rejected)

    def use_since(self, mark: Mark) -> wire.CacheUse:
        """What was used since a mark, and what is held now, by earlier jobs too."""
        return wire.CacheUse(
            hits=self._hits - mark.hits,
            misses=self._misses - mark.misses,
            rejected=self._rejected - mark.rejected,
            memory_bytes=self._memory_bytes,
            disk_bytes=self._files.bytes,
        )

    @property
    def memory_bytes(self) -> int:
        """Held in memory now."""
        return self._memory_bytes

    def close(self) -> None:
        """Give the memory back. What is on disk stays, and the cache can be used on."""
        self._memory.clear()
        self._memory_bytes = 0

    def space(self, identity: dict[str, Any], dtype: Any, width: int) -> "PrefixSpace":
        """The entries of one model at one split.

        Args:
            identity: All that the hidden states depend on beside the base and the row, as JSON.
            dtype: Of the hidden states.
            width: Of the hidden states, H.
        """
        parts = {**identity, "schema_version": SCHEMA_VERSION, "base_sha256": self._base_sha256, "dtype": str(dtype)}
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        if key != self._space:
            self._space = key
            self._files.forget_use()
            ours = {entry: hidden for entry, hidden in self._memory.items() if entry[0] == key}
            self._memory = {entry: self._memory[entry] for entry in self._memory if entry not in ours} | ours
        self._files.shrink(max(0, self._max_bytes - self._memory_bytes))
        return PrefixSpace(self, key, dtype, width)

    def get(self, space: str, row: str, dtype: Any, shape: tuple[int, int]) -> Any:
        """Hidden states ``[T, H]`` on the host, or None; counted."""
        hidden = self._memory.get((space, row))
        if hidden is None:
            hidden, is_rejected = self._files.read(space, row, dtype, shape)
            self._rejected += is_rejected
        if hidden is None:
            self._misses += 1
        else:
            self._hits += 1
        return hidden

    def put(self, space: str, row: str, hidden: Any) -> None:
        """Keep hidden states ``[T, H]`` if there is room."""
        size = hidden.nbytes
        while self._memory_bytes + size > self._ram_limit() and self._drop_stale():
            pass
        is_for_disk = self._memory_bytes + size > self._ram_limit()
        size += HEADER_BYTES if is_for_disk else 0
        while self._memory_bytes + self._files.bytes + size > self._max_bytes and self._drop_stale():
            pass
        if not self._files.shrink(self._max_bytes - self._memory_bytes - size):
            return
        if is_for_disk:
            self._files.write(space, row, hidden)
            return
        self._memory[space, row] = hidden.detach().cpu().contiguous()
        self._memory_bytes += size

    def _drop_stale(self) -> bool:
        """Drop the oldest entry of memory if it is not of the split at work; all of those come after the others."""
        oldest = next(iter(self._memory), None)
        if oldest is None or oldest[0] == self._space:
            return False
        self._memory_bytes -= self._memory.pop(oldest).nbytes
        return True

    def _ram_limit(self) -> int:
        """Bytes that memory may hold at this moment."""
        now = time.monotonic()
        if now - self._ram_checked_at >= RAM_CHECK_SECONDS:
            self._ram_bytes = int(self._ram_share * (available_bytes() + self._memory_bytes))
            self._ram_checked_at = now
        return min(self._ram_bytes, self._max_bytes)


class PrefixSpace:
    """The entries of one model at one split, by their token ids."""

    def __init__(self, cache: PrefixCache, key: str, dtype: Any, width: int) -> None:
        self._cache = cache
        self._key = key
        self._dtype = dtype
        self._width = width

    def get(self, ids: list[int]) -> Any:
        """Hidden states ``[T, H]`` on the host, or None."""
        return self._cache.get(self._key, _row_key(ids), self._dtype, (len(ids), self._width))

    def put(self, ids: list[int], hidden: Any) -> None:
        """Keep hidden states ``[T, H]`` if there is room."""
        self._cache.put(self._key, _row_key(ids), hidden)


def _row_key(ids: list[int]) -> str:
    return hashlib.sha256(array("q", ids).tobytes()).hexdigest()
