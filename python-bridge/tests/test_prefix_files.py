"""Entries on disk: damaged, half written, on a full disk, left over."""

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from caching import FROM_THE_START, Opener, files, train

from vivarium_bridge.prefix_files import PARTIAL_PREFIX


@pytest.fixture
def open_cache(tmp_path) -> Opener:
    return Opener(tmp_path / "cache")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    """What a power cut leaves of a file that was renamed before it was written out."""
    path.write_bytes(bytes(path.stat().st_size))


def swap(path: Path) -> None:
    """Another row's entry, whole and with a good hash."""
    path.write_bytes(max(path.parent.iterdir(), key=lambda other: other != path).read_bytes())


def relabel(path: Path) -> None:
    """Another dtype of the same size."""
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("damage", [flip_a_bit, cut, empty, zero, swap, relabel, lengthen])
def test_a_damaged_entry_is_made_anew(open_cache, tmp_path, damage):
    wanted, _ = train(open_cache(ram=False))
    victim = files(tmp_path / "cache")[3]
    good = victim.read_bytes()
    damage(victim)
    assert victim.read_bytes() != good
    cache = open_cache(ram=False)
    weights, _ = train(cache)
    use = cache.use_since(FROM_THE_START)
    assert (use.rejected, use.misses) == (1, 1)
    assert torch.equal(weights, wanted)
    assert victim.read_bytes() == good


def test_a_file_in_place_of_the_folder_is_warned_of_once(open_cache, tmp_path):
    wanted, _ = train(open_cache())
    (tmp_path / "file").write_text("mine")
    weights, _ = train(open_cache(ram=False, folder=tmp_path / "file"))
    assert torch.equal(weights, wanted)
    assert len(open_cache.warnings) == 1
    assert "the prefix cache writes no more to disk: " in open_cache.warnings[0]
    assert (tmp_path / "file").read_text() == "mine"


FULL_DISK = """
import resource, sys
sys.path[:0] = {paths!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
import caching as here
from pathlib import Path
from vivarium_bridge.prefix_cache import PrefixCache
told = []
cache = PrefixCache(here.BASE, here.GIB, Path(sys.argv[1]), told.append, ram_share=0.0)
weights, _ = here.train(cache)
print(len(told), weights.double().sum().item().hex(), told[0])
"""


def run_script(text: str, *arguments: str) -> subprocess.Popen:
    script = text.format(paths=[str(Path(__file__).parent), str(Path(__file__).parent.parent / "src")])
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def test_a_disk_that_fills_up_does_not_end_the_run(open_cache, tmp_path):
    """Rows above some length do not fit (EFBIG, as ENOSPC): what was written before stays, and no part of others."""
    wanted, _ = train(open_cache())
    child = run_script(FULL_DISK, str(tmp_path / "full"))
    output, _ = child.communicate(timeout=120)
    warned, total, warning = output.split(" ", 2)
    assert child.returncode == 0
    assert warned == "1"
    assert "File too large" in warning
    assert total == float(wanted.double().sum()).hex()
    assert not list((tmp_path / "full").rglob(f"{PARTIAL_PREFIX}*"))


FILL = """
import sys
sys.path[:0] = {paths!r}
import itertools, torch
from pathlib import Path
from vivarium_bridge.prefix_cache import PrefixCache
cache = PrefixCache("0" * 64, 2**40, Path(sys.argv[1]), print, ram_share=0.0)
space = cache.space({{}}, torch.float32, 4096)
print("ready", flush=True)
for row in itertools.count():
    space.put([row], torch.full((256, 4096), float(row)))
"""


def test_a_kill_while_filling_leaves_nothing_that_is_believed_and_wrong(open_cache, tmp_path):
    folder = tmp_path / "cache"
    for _attempt in range(3):
        child = run_script(FILL, str(folder))
        assert child.stdout is not None
        child.stdout.readline()
        deadline = time.monotonic() + 60
        while not files(folder) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 * (1 + _attempt))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    found = {path: path.read_bytes() for path in files(folder)}
    assert found
    for data in found.values():  # each file, whole: its values are all those of one row
        assert len(data) == 512 + 256 * 4096 * 4
        assert data[512:] == data[512:516] * (256 * 4096)
    cache = open_cache(ram=False)
    cache.space({}, torch.float32, 4096)
    assert not list(folder.rglob(f"{PARTIAL_PREFIX}*"))
    assert cache.use_since(cache.mark()).disk_bytes == sum(len(data) for data in found.values())


def test_what_a_living_writer_is_about_is_left_alone(open_cache, tmp_path):
    space = tmp_path / "cache" / ("a" * 64)
    space.mkdir(parents=True)
    living, dead, foreign = (space / name for name in (f"{PARTIAL_PREFIX}1", f"{PARTIAL_PREFIX}2", "notes.txt"))
    for path in (living, dead, foreign):
        path.write_text("x")
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        open_cache().space({}, torch.float32, 1)
        assert living.exists() and foreign.exists()
        assert not dead.exists()
    open_cache().space({}, torch.float32, 1)
    assert not living.exists()
