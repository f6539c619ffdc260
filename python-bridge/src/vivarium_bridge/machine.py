"""The machine that a run is computed on. torch is imported inside the functions."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the last bits of a run depend on beside its job."""

    device: str
    """cpu, or the GPU's name"""
    num_threads: int
    """of torch on the host"""


def this_machine(device: Any) -> Machine:
    """Where a model on a device is trained."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Machine(device=name, num_threads=torch.get_num_threads())


def machine_warning(then: Machine, now: Machine) -> str | None:
    """What to say of a run that goes on on a machine other than the one its state was written on.

    On a GPU, threads of the host compute nothing.
    """
    if then.device != now.device:
        what = f"on {now.device}, until here it was on {then.device}"
    elif now.device == "cpu" and then.num_threads != now.num_threads:
        what = f"with {now.num_threads} threads, until here it had {then.num_threads}"
    else:
        return None
    return f"the run goes on {what}: results stay within rounding but not bit for bit"
