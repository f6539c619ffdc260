"""Gradient checkpointing by need, and what is said when nothing helps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.fitting import smaller_sizes

ROWS = tiny.token_rows()
STEPS = 4


def test_checkpointing_is_of_the_layers_above_the_split_only():
    model = tiny.adapted(tiny.causal_lm())
    layers = model.get_base_model().model.layers
    calls = [0] * len(layers)
    for index, layer in enumerate(layers):
        layer.self_attn.register_forward_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
    loop = tiny.make_loop(model, ROWS, tiny.training(gradient_checkpointing="on"))
    assert [layer.gradient_checkpointing for layer in layers] == [False, False, True, True]
    calls[:] = [0] * len(layers)
    tiny.run(loop, 1)
    assert calls == [4, 4, 8, 8]  # 4 micro-batches; above the split once more in the backward pass
    assert not model.get_input_embeddings()._forward_hooks  # nobody made embeddings require a gradient
    tiny.make_loop(model, ROWS, tiny.training())
    assert not any(layer.gradient_checkpointing for layer in layers)


def test_batch_sizes_to_fall_back_to_divide_the_rows_of_a_step():
    sizes = {(8, 2): [4, 2, 1], (6, 1): [3, 1], (5, 4): [2, 1], (5, 3): [1], (12, 1): [6, 3, 1], (1, 4): []}
    for (size, steps), smaller in sizes.items():
        arguments = tiny.training(per_device_train_batch_size=size, gradient_accumulation_steps=steps)
        assert list(smaller_sizes(arguments)) == smaller


MEMORY = """
import json, os, resource, sys
sys.path[:0] = {paths!r}
import tiny
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.errors import BridgeError
from vivarium_bridge.loop import Loop

def attempt(mib, mode, size):
    arguments = tiny.training(
        per_device_train_batch_size=size, gradient_accumulation_steps=32 // size, gradient_checkpointing=mode
    )
    told = []
    loop = Loop(model, rows, [], arguments, 2, None, told.append)
    status = open("/proc/self/status").read().split("VmData:")[1]
    resource.setrlimit(resource.RLIMIT_DATA, (int(status.split()[0]) * 1024 + mib * 2**20,) * 2)
    try:
        prepared = loop.prepare(Cancellation())
        loop.run_step(0, Cancellation())
        return ["ok", prepared.gradient_checkpointing, told]
    except BridgeError as error:
        return [error.code, error.message, error.hint]

rows = tiny.token_rows(32, shortest=100, longest=128)
model = tiny.adapted(tiny.causal_lm(hidden_size=64, intermediate_size=2048, num_hidden_layers=10))
for case in json.loads(sys.argv[1]):
    child = os.fork()  # a limit and what was allocated under it are the child's own
    if child == 0:
        print(json.dumps(attempt(*case)), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def within(*cases: tuple[int, str, int]) -> list[list]:
    """Train with so many MiB beyond what the model takes, gradient checkpointing and batch size, each in a process."""
    script = MEMORY.format(paths=[str(Path(__file__).parent), str(Path(__file__).parent.parent / "src")])
    # A fixed threshold: freed memory goes back at once, so that the same attempt always fits or never.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(cases), done.stderr
    return results


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA covers all memory on Linux only")
def test_what_does_not_fit_is_checkpointed_or_refused_before_the_first_step():
    ample, checkpointed, refused, small, as_told, nothing = within(
        (4000, "auto", 16),
        (260, "auto", 16),
        (260, "off", 16),
        (80, "auto", 16),
        (80, "auto", 8),
        (5, "auto", 16),
    )
    assert ample == ["ok", False, []]
    told = ["the longest batch does not fit into memory: gradient checkpointing is switched on"]
    assert checkpointed == ["ok", True, told]
    do_that = (
        "Set per_device_train_batch_size to {} and gradient_accumulation_steps to {}: the result is the same up to"
    )
    assert refused[:2] == ["OUT_OF_MEMORY", "16 rows at once do not fit into memory: 8 do"]
    assert refused[2].startswith(do_that.format(8, 4))
    assert refused[2].endswith("Or set gradient_checkpointing to auto.")
    assert small[:2] == ["OUT_OF_MEMORY", "16 rows at once do not fit into memory: 8 do"]
    assert small[2].startswith(do_that.format(8, 4))
    assert as_told == ["ok", True, told]
    assert nothing[0] == "OUT_OF_MEMORY"
    assert nothing[1] in (  # the memory that libraries hold back differs between machines
        "the two shortest rows do not fit into memory, even without a gradient",
        "16 rows at once do not fit into memory, and neither does the longest row alone",
    )


@pytest.mark.parametrize("failing", [0, 3], ids=["first micro-batch", "last micro-batch"])
def test_memory_that_runs_short_later_changes_no_bit(failing):
    """A step is begun again with checkpointing: the same random numbers, the same result."""

    def train(fails: bool):
        torch.manual_seed(2)
        told: list[str] = []
        model = tiny.adapted(tiny.causal_lm(), lora_dropout=0.3, layers_to_transform=[1, 2])
        loop = tiny.make_loop(model, ROWS, tiny.training(gradient_checkpointing="auto"), info=told.append)
        tiny.run(loop, 1)
        layer = model.get_base_model().model.layers[3]
        calls = 0

        def run_short(*_):
            nonlocal calls
            calls += 1
            if fails and calls == failing + 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

        layer.mlp.register_forward_hook(run_short)
        stats = [loop.run_step(step, Cancellation()) for step in range(1, STEPS)]
        assert layer.gradient_checkpointing == fails
        return tiny.weights(loop), [step.loss for step in stats], told

    weights, losses, told = train(True)
    wanted, wanted_losses, nothing = train(False)
    assert told == ["step 2 does not fit into memory: gradient checkpointing is switched on"]
    assert nothing == []
    assert losses == wanted_losses
    assert torch.equal(weights, wanted)
