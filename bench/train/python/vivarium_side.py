"""Trains with vivarium's own loop."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gate import Gate
from job import Job
from setting import SEED, build_model, lora_shape, make_rows, set_first_weights, training_arguments

from vivarium_bridge.adapter import build_adapter
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.loop import Loop
from vivarium_bridge.prefix_cache import PrefixCache

CACHE_BYTES = 4 * 2**30


def train(job: Job, gate: Gate) -> tuple[Any, dict[str, Any]]:
    """Make all steps, each when the gate opens.

    Returns:
        The trained model, and what is to be told of it.
    """
    import torch

    base = build_model(job.shape).to(getattr(torch, job.dtype))
    model = build_adapter(base.eval(), lora_shape(job), SEED)
    set_first_weights(model)
    rows = make_rows(job.n_rows, job.shape.vocab_size)
    cache = None
    if job.prefix_cache_dir is not None:
        cache = PrefixCache("bench", CACHE_BYTES, Path(job.prefix_cache_dir), _say)
    loop = Loop(model, rows, [], training_arguments(job), job.steps, cache, _say)
    cancellation = Cancellation()
    prepared = loop.prepare(cancellation)
    model.train()
    mark = None if cache is None else cache.mark()
    gate.ready(prepared=asdict(prepared))
    for step in range(job.steps):
        gate.wait()
        gate.done(loop.run_step(step, cancellation).loss)
    return model, {"cache": None if cache is None or mark is None else asdict(cache.use_since(mark))}


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
