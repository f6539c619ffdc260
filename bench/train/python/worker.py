"""One way to train, one process, one optimizer step at a time. Started by worker.ts; stdin's first line is the job."""

import os
import warnings
from importlib.metadata import version
from typing import Any

from gate import Gate, peak_bytes
from job import read_job
from setting import describe_rows, trained_parameters

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")


def main() -> None:
    """Train, then save the adapter where the driver's last line says."""
    gate = Gate()
    job = read_job(gate.read())
    warnings.filterwarnings("ignore")
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    transformers.logging.set_verbosity_error()
    if job.side == "trl":
        from trl_side import train
    else:
        from vivarium_side import train
    model, facts = train(job, gate)
    peak = peak_bytes()
    save(model, gate.read().strip())
    rows = describe_rows(job)
    versions = {name: version(name) for name in PACKAGES}
    gate.send(type="done", peak_rss_bytes=peak, versions=versions, rows=rows, **facts)


def save(model: Any, path: str) -> None:
    """Write the trained parameters, by PEFT's names."""
    from safetensors.torch import save_file

    save_file({name: p.detach().float().contiguous() for name, p in trained_parameters(model).items()}, path)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
