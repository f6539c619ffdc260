"""The merge job: base and adapter as one plain model folder."""

from pathlib import Path
from typing import Any

from . import _wire as wire
from .cancel import Cancellation
from .channel import Channel
from .checkpoint import CONFIG_FILE
from .errors import BridgeError
from .files import file_ref, remove, write_folder
from .model_folder import fill_model_folder
from .models import load_base


def run_merge(job: wire.MergeJob, channel: Channel, cancellation: Cancellation) -> wire.MergeResult:
    """Merge by plain PEFT, in float32 on the CPU, then round once to the dtype that is asked for.

    Raises:
        BridgeError: ``BAD_JOB`` if the folder is there already; ``BAD_MODEL`` if PEFT cannot load the adapter or its
            weights are not finite.
    """
    import torch

    out_dir = Path(job.out_dir)
    if out_dir.exists():
        raise BridgeError(
            "BAD_JOB", f"{out_dir}: expected no such folder, found one", "Remove it, or name another folder."
        )
    torch.set_num_threads(job.num_threads)
    channel.info(f"merging into {job.dtype}")
    base = load_base(job.base_model_dir, torch.float32, torch.device("cpu"))
    cancellation.check()
    merged = _merge(base, job.adapter_dir).to(getattr(torch, job.dtype))
    cancellation.check()
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    write_folder(out_dir, lambda folder: fill_model_folder(folder, merged, job.base_model_dir))
    if cancellation.is_set():
        remove(out_dir)
        cancellation.check()
    return wire.MergeResult(files=[file_ref(path, out_dir) for path in sorted(out_dir.iterdir())])


def _merge(base: Any, adapter_dir: str) -> Any:
    from peft import PeftModel

    if not (Path(adapter_dir) / CONFIG_FILE).is_file():
        raise BridgeError("BAD_MODEL", f"{adapter_dir}: expected an adapter folder, found no {CONFIG_FILE}")
    try:
        return PeftModel.from_pretrained(base, adapter_dir).merge_and_unload(safe_merge=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if "memory" in str(error):
            raise
        raise BridgeError("BAD_MODEL", f"{adapter_dir}: PEFT cannot merge it: {error}") from error
