"""A short training with a prefix cache, for the tests of the cache and of its files."""

from pathlib import Path

import tiny

from vivarium_bridge.prefix_cache import Mark, PrefixCache

BASE = "0" * 64
ROWS = tiny.token_rows(16)
GIB = 2**30
FROM_THE_START = Mark(0, 0, 0)


def train(cache, **changes):
    """Two epochs of two steps each; returns the trained weights and the losses."""
    loop = tiny.make_loop(tiny.adapted(tiny.causal_lm()), ROWS, tiny.training(**changes), cache=cache)
    losses = [stats.loss for stats in tiny.run(loop)]
    return tiny.weights(loop), losses


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


class Opener:
    """Opens caches, by default in one folder; without ``ram`` all goes to disk."""

    def __init__(self, folder: Path) -> None:
        self.warnings: list[str] = []
        self._folder = folder

    def __call__(self, max_bytes=GIB, *, ram=True, folder=None, base=BASE) -> PrefixCache:
        share = {} if ram else {"ram_share": 0.0}
        return PrefixCache(base, max_bytes, folder or self._folder, self.warnings.append, **share)
