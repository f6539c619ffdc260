"""Frozen prefixes: cached as live, whatever the cache holds, whatever happens to its files."""

import os

import pytest
import tiny
import torch
from caching import BASE, FROM_THE_START, GIB, ROWS, Opener, files, train
from safetensors import safe_open

from vivarium_bridge.ram import available_bytes

BYTES = sum(len(row.ids) for row in ROWS) * 32 * 4


@pytest.fixture
def open_cache(tmp_path) -> Opener:
    return Opener(tmp_path / "cache")


@pytest.mark.parametrize("batching", ["in_order", "by_length", "packed"])
def test_cached_is_live_up_to_rounding(open_cache, batching):
    live, live_losses = train(None, batching=batching)
    cached, losses = train(open_cache(), batching=batching)
    assert tiny.rel_diff(cached, live) < 1e-5
    assert losses == pytest.approx(live_losses, rel=1e-5)


@pytest.mark.parametrize("batching", ["in_order", "by_length", "packed"])
def test_results_do_not_depend_on_what_was_cached(open_cache, tmp_path, batching):
    """Bit for bit: memory, no room at all, room for some rows, disk being filled, disk filled before."""
    caches = [
        open_cache(folder=tmp_path / "memory"),
        open_cache(0, folder=tmp_path / "none"),
        open_cache(BYTES // 3, folder=tmp_path / "some"),
        open_cache(BYTES // 3, ram=False, folder=tmp_path / "some on disk"),
        open_cache(ram=False, folder=tmp_path / "disk"),
        open_cache(ram=False, folder=tmp_path / "disk"),
    ]
    first, *others = [train(cache, batching=batching) for cache in caches]
    for weights, losses in others:
        assert torch.equal(weights, first[0])
        assert losses == first[1]
    uses = [cache.use_since(FROM_THE_START) for cache in caches]
    memory, none, some, some_on_disk, filled, found = uses
    assert (memory.misses, memory.disk_bytes) == (16, 0)
    assert memory.memory_bytes == BYTES
    assert (none.hits, none.memory_bytes, none.disk_bytes) == (0, 0, 0)
    assert 0 < some.memory_bytes <= BYTES // 3
    assert some.hits > 0 < some.misses - 16
    assert 0 < some_on_disk.disk_bytes <= BYTES // 3
    assert filled.misses == 16
    assert filled.memory_bytes == 0
    assert filled.disk_bytes > BYTES
    assert (found.misses, found.rejected) == (0, 0)
    assert len(files(tmp_path / "disk")) == 16


def test_an_entry_is_a_safetensors_file_in_the_dtype_of_the_model(open_cache, tmp_path):
    model = tiny.adapted(tiny.causal_lm().to(torch.bfloat16))
    tiny.run(tiny.make_loop(model, ROWS, tiny.training(), cache=open_cache(ram=False)))
    with safe_open(files(tmp_path / "cache")[0], framework="pt") as file:
        hidden = file.get_tensor("hidden_states")
        assert set(file.metadata()) == {"space", "row", "sha256"}
    assert hidden.dtype == torch.bfloat16
    assert hidden.shape[1] == 32


def test_other_bases_splits_and_dtypes_have_entries_of_their_own(open_cache, tmp_path):
    def use(base=BASE, layer=2, dtype=torch.float32):
        cache = open_cache(ram=False, base=base)
        model = tiny.adapted(tiny.causal_lm().to(dtype), layers_to_transform=[layer])
        tiny.run(tiny.make_loop(model, ROWS, tiny.training(), cache=cache))
        return cache.use_since(FROM_THE_START).misses

    variants = [{}, {"base": "1" * 64}, {"layer": 1}, {"dtype": torch.bfloat16}]
    assert [use(**variant) for variant in variants] == [16, 16, 16, 16]
    assert [use(**variant) for variant in variants] == [0, 0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_the_oldest_entries_of_others_make_room(open_cache, tmp_path):
    row = torch.zeros(10, 8)

    def fill(base, max_bytes, n=4):
        cache = open_cache(max_bytes, ram=False, base=base)
        space = cache.space({}, torch.float32, 8)
        for token in range(n):
            space.put([token] * 10, row)
        return cache, space

    fill("1" * 64, GIB)
    old = files(tmp_path / "cache")
    for age, path in enumerate(old):
        os.utime(path, (1000 + age, 1000 + age))
    size = old[0].stat().st_size
    assert size == 512 + 10 * 8 * 4
    cache, space = fill("2" * 64, 6 * size)
    left = set(files(tmp_path / "cache"))
    assert [path in left for path in old] == [False, False, True, True]
    assert cache.use_since(cache.mark()).disk_bytes == 6 * size
    for token in range(4, 12):  # what is in use makes room for nothing
        space.put([token] * 10, row)
    assert sum(space.get([token] * 10) is not None for token in range(12)) == 6
    assert len(files(tmp_path / "cache")) == 6


def test_memory_of_an_earlier_split_makes_room(open_cache):
    cache = open_cache(10 * 320)
    first = cache.space({"split_layer": 1}, torch.float32, 8)
    for token in range(8):
        first.put([token] * 10, torch.zeros(10, 8))
    second = cache.space({"split_layer": 2}, torch.float32, 8)
    for token in range(9):
        second.put([token] * 10, torch.ones(10, 8))
    assert all(second.get([token] * 10) is not None for token in range(9))
    assert [first.get([token] * 10) is not None for token in range(8)] == [False] * 7 + [True]
    assert cache.use_since(cache.mark()).memory_bytes == 10 * 320
    cache.close()
    assert cache.use_since(cache.mark()).memory_bytes == 0


def test_use_is_told_by_run(open_cache):
    cache = open_cache()
    train(cache)
    mark = cache.mark()
    train(cache)
    use = cache.use_since(mark)
    assert (use.misses, use.rejected) == (0, 0)
    assert use.hits >= 2 * 16


def test_held_out_and_kl_rows_are_cached_too(open_cache):
    cache = open_cache()
    start = cache.mark()
    kl_rows, held_out = tiny.token_rows(3, seed=1), tiny.token_rows(5, seed=2)
    loop = tiny.make_loop(
        tiny.adapted(tiny.causal_lm()), ROWS, tiny.training(kl_weight=1.0), cache=cache, kl_rows=kl_rows
    )
    tiny.run(loop)
    first = loop.held_out(held_out, tiny.Cancellation())
    assert cache.use_since(start).misses == 16 + 3 + 5
    assert loop.held_out(held_out, tiny.Cancellation()) == first
    assert cache.use_since(start).misses == 16 + 3 + 5


def test_free_memory_is_that_of_the_tightest_cgroup(tmp_path):
    def write(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    write("proc/meminfo", "MemTotal: 2000 kB\nMemAvailable: 1000 kB\n")
    assert available_bytes(tmp_path) == 1000 * 1024
    write("proc/self/cgroup", "0::/outer/inner\n")
    for group, limit in {"outer": "500000", "outer/inner": "max"}.items():
        write(f"sys/fs/cgroup/{group}/memory.max", f"{limit}\n")
        write(f"sys/fs/cgroup/{group}/memory.current", "300000\n")
        write(f"sys/fs/cgroup/{group}/memory.stat", "anon 5\ninactive_file 1000\n")
    assert available_bytes(tmp_path) == 500000 - 300000 + 1000
    assert 0 < available_bytes() < 2**50
