"""The scoring job: teacher-forced log-probabilities through transformers and PEFT, the reference for other engines."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import _wire as wire
from .adapter import layer_of, scalings
from .cancel import Cancellation
from .channel import Channel
from .checkpoint import CONFIG_FILE, WEIGHTS_FILE
from .errors import BridgeError
from .files import PARTIAL_PREFIX, remove
from .models import encoder, load_base, load_config, load_prompts, load_tokenizer, pick_device, renderer

ROWS_AT_A_TIME = 64
"""Positions turned into log-probabilities at once: 64 x 152k float64 are 78 MB."""
BASE_ID = "base"


def run_score(job: wire.ScoreJob, channel: Channel, cancellation: Cancellation) -> wire.ScoreResult:
    """Score all prompts with the base and then with each adapter, one after the other on the same base.

    Raises:
        BridgeError: With the code that the driver shows.
    """
    import torch
    from peft import PeftModel

    torch.set_num_threads(job.num_threads)
    torch.set_float32_matmul_precision("highest")  # no TF32: this is what others are compared with
    config = load_config(job.base_model_dir, job.n_layers)
    prompts = load_prompts(job.prompts_file, config.vocab_size)
    for adapter in job.adapters:
        check_adapter(adapter, config.num_hidden_layers)
    out_dir = Path(job.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    base = load_base(job.base_model_dir, torch.float32, pick_device(), job.n_layers)
    files = [write_logprobs(base, BASE_ID, prompts, out_dir, cancellation)]
    found_scalings: dict[str, dict[str, float]] = {}
    for adapter in job.adapters:
        channel.info(f"scoring {adapter.id}")
        model = PeftModel.from_pretrained(base, adapter.dir).eval()
        found_scalings[adapter.id] = scalings(model)
        files.append(write_logprobs(model, adapter.id, prompts, out_dir, cancellation))
        base = model.unload()
    n_positions = sum(len(prompt) for prompt in prompts)
    vocab_size = files[0].bytes // (4 * n_positions)
    return wire.ScoreResult(
        n_positions=n_positions,
        vocab_size=vocab_size,
        files=files,
        scalings=found_scalings,
        conversation_ids=[]
        if job.conversations_file is None
        else prompt_ids(job.base_model_dir, job.conversations_file),
    )


def prompt_ids(model_dir: str, conversations_file: str) -> list[list[int]]:
    """Token ids of each conversation as inference renders it, generation prompt included: ``[conversation][token]``.

    Raises:
        BridgeError: ``BAD_DATA`` if the file is not as described, or the chat template refuses a conversation.
    """
    tokenizer = load_tokenizer(model_dir)
    try:
        given = json.loads(Path(conversations_file).read_text(encoding="utf-8"))
        render = renderer(tokenizer, given["chat_template_kwargs"])
        encode = encoder(tokenizer)
        return [encode(render(messages, True)) for messages in given["conversations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BridgeError("BAD_DATA", f"{conversations_file}: {error}") from error


def check_adapter(adapter: wire.AdapterDir, n_layers: int) -> None:
    """Refuse what would be scored without its adapter, or in part.

    Raises:
        BridgeError: ``BAD_JOB`` if the id is no file name; ``BAD_MODEL`` if the folder is no adapter, or touches a
            layer that is cut off: PEFT would skip it and only warn.
    """
    from safetensors import SafetensorError, safe_open

    if adapter.id == BASE_ID or Path(adapter.id).name != adapter.id:
        raise BridgeError("BAD_JOB", f"adapter id {adapter.id!r}: expected a file name other than {BASE_ID}")
    folder = Path(adapter.dir)
    if not (folder / CONFIG_FILE).is_file():
        raise BridgeError("BAD_MODEL", f"{folder}: expected a PEFT adapter, found no {CONFIG_FILE}")
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            layers = {layer_of(name) for name in weights.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise BridgeError("BAD_MODEL", f"{folder / WEIGHTS_FILE}: cannot read it: {error}") from error
    beyond = sorted(layer for layer in layers if layer is not None and layer >= n_layers)
    if beyond:
        raise BridgeError("BAD_MODEL", f"{folder}: adapts layer {beyond[0]}, but only {n_layers} layers are kept")


def write_logprobs(
    model: Any, id: str, prompts: list[list[int]], out_dir: Path, cancellation: Cancellation
) -> wire.LogprobsFile:
    """Write ``<id>.f32``: float32 ``[n_positions, vocab_size]``, row-major, in nats; whole or not at all."""
    path = out_dir / f"{id}.f32"
    partial = out_dir / f"{PARTIAL_PREFIX}{path.name}"
    try:
        with partial.open("wb") as file:
            for prompt in prompts:
                cancellation.check()
                file.writelines(logprob_bytes(model, prompt))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        remove(partial)
        raise
    os.replace(partial, path)
    return wire.LogprobsFile(id=id, path=str(path), bytes=path.stat().st_size)


def logprob_bytes(model: Any, prompt: list[int]) -> Iterable[bytes]:
    """Log-probabilities of all next tokens at each position of a prompt: float32, from a float64 log-softmax."""
    import torch

    with torch.inference_mode():
        tokens = torch.tensor([prompt], device=model.device)
        logits = model(input_ids=tokens, use_cache=False).logits[0]
        for rows in logits.split(ROWS_AT_A_TIME):
            yield torch.log_softmax(rows.double(), dim=-1).float().cpu().numpy().tobytes()
