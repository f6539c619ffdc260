"""Hidden states that enter the split, kept between steps, runs and jobs."""

from collections.abc import Callable
from pathlib import Path

from . import _wire as wire


class PrefixCache:
    """Hidden states of rows: in memory first, then on disk, within ``max_bytes`` together.

    What it holds never changes a result, only how long that takes.
    """

    def __init__(self, base_sha256: str, max_bytes: int, folder: Path, warn: Callable[[str], None]) -> None:
        self._base_sha256 = base_sha256
        self._max_bytes = max_bytes
        self._folder = folder
        self._warn = warn
        self._hits = self._misses = self._rejected = 0

    def mark(self) -> tuple[int, int, int]:
        """The counts of now, for ``use_since``."""
        return self._hits, self._misses, self._rejected

    def use_since(self, mark: tuple[int, int, int]) -> wire.CacheUse:
        """What was used since a mark, and what is held now."""
        hits, misses, rejected = mark
        return wire.CacheUse(
            hits=self._hits - hits,
            misses=self._misses - misses,
            rejected=self._rejected - rejected,
            memory_bytes=0,
            disk_bytes=0,
        )

    def close(self) -> None:
        """Give the memory back. What is on disk stays."""
