"""Base models, tokenizers and the device. torch and transformers are imported inside the functions."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import BridgeError
from .masking import Encode
from .optim import load_bitsandbytes
from .rendering import Message, Render

GPU_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Where a GPU that torch could use shows: NVIDIA, under WSL, AMD."""


def device_name() -> str:
    """What this machine computes on, for people. Imports torch only where there may be a GPU."""
    if not any(os.path.exists(node) for node in GPU_NODES):
        return "cpu"
    import torch

    return f"cuda:0 {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "cpu"


def pick_device() -> Any:
    """The device on which models are put."""
    import torch

    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def peak_memory_bytes(device: Any) -> int:
    """Peak of allocated GPU memory, or of this process's resident memory on the CPU."""
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: Any) -> None:
    """Begin to count anew; the CPU's peak is that of the process."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def load_config(model_dir: str, n_layers: int | None = None) -> Any:
    """The model's config, cut to its first ``n_layers`` decoder layers.

    Raises:
        BridgeError: ``BAD_MODEL`` if it cannot be read or has fewer layers.
    """
    from transformers import AutoConfig

    if not (Path(model_dir) / "config.json").is_file():
        raise BridgeError("BAD_MODEL", f"{model_dir}: expected a model folder, found no config.json")
    try:
        config = AutoConfig.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BridgeError("BAD_MODEL", f"{model_dir}: transformers cannot read config.json: {error}") from error
    return config if n_layers is None else _truncate(config, n_layers)


def _truncate(config: Any, n_layers: int) -> Any:
    if n_layers > config.num_hidden_layers:
        raise BridgeError(
            "BAD_MODEL",
            f"expected at most {config.num_hidden_layers} layers, the model's, got n_layers {n_layers}",
        )
    config.num_hidden_layers = n_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_layers]
    return config


def load_base(model_dir: str, dtype: Any, device: Any, n_layers: int | None = None, *, in_4bit: bool = False) -> Any:
    """The frozen base model in evaluation mode.

    Args:
        model_dir: Its folder.
        dtype: Of the weights; of the arithmetic where these are 4-bit.
        device: Where to put it.
        n_layers: Keep only the first ones.
        in_4bit: NF4 with double quantisation, all that is not quantised in float32. Source: Dettmers et al. 2023,
            "QLoRA"; peft ``prepare_model_for_kbit_training``, whose gradients at the input nobody needs here.

    Raises:
        BridgeError: ``BAD_MODEL`` if it cannot be loaded or the files lack a weight: transformers would fill the hole
            with random numbers and only warn. ``BAD_JOB`` if 4-bit weights are not to be had on this machine.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # stderr is a log file
    placement: dict[str, Any] = _in_4bit(dtype, device) if in_4bit else {}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model_dir,
            config=load_config(model_dir, n_layers),
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **placement,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if "memory" in str(error):
            raise
        raise BridgeError("BAD_MODEL", f"{model_dir}: transformers cannot load it: {error}") from error
    model, report = loaded
    absent = sorted(report["missing_keys"]) + sorted(str(entry) for entry in report["mismatched_keys"])
    if absent:
        raise BridgeError("BAD_MODEL", f"{model_dir}: {len(absent)} weights are missing or misshapen: {absent[0]}")
    if in_4bit:
        return _prepare_4bit(model)
    return model.to(device).requires_grad_(False).eval()


def _in_4bit(dtype: Any, device: Any) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    load_bitsandbytes("load_in_4bit", "Use --set load_in_4bit=false.")
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": quantisation, "device_map": {"": str(device)}}


def _prepare_4bit(model: Any) -> Any:
    from peft import prepare_model_for_kbit_training

    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes repacks and rounds weights at the first evaluation on such a CPU: the base would change.
            module.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False).eval()


def is_4bit_model(model: Any) -> bool:
    """Whether the weights are quantised."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def load_tokenizer(model_dir: str) -> Any:
    """The model's own tokenizer with its chat template.

    Raises:
        BridgeError: ``BAD_MODEL`` if it cannot be loaded, or has no chat template or no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            model_dir, use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise BridgeError("BAD_MODEL", f"{model_dir}: transformers cannot load the tokenizer: {error}") from error
    for name in ("chat_template", "eos_token"):
        if not isinstance(getattr(tokenizer, name, None), str):
            raise BridgeError("BAD_MODEL", f"{model_dir}: the tokenizer has no {name}")
    return tokenizer


def renderer(tokenizer: Any, template_kwargs: dict[str, Any]) -> Render:
    """The chat template as a function; a template that raises is a ValueError, since it refuses a row."""
    from jinja2 import TemplateError

    def render(messages: list[Message], add_generation_prompt: bool) -> str:
        try:
            return tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt, **template_kwargs
            )
        except (TemplateError, IndexError, TypeError) as error:
            raise ValueError(f"the chat template refuses the messages: {error}") from error

    return render


def encoder(tokenizer: Any) -> Encode:
    """Text to ids, adding nothing: the chat template has written every special token."""
    encode: Callable[..., Any] = tokenizer.backend_tokenizer.encode
    return lambda text: encode(text, add_special_tokens=False).ids


def load_prompts(path: str, vocab_size: int) -> list[list[int]]:
    """Prompts as token ids.

    Raises:
        BridgeError: ``BAD_DATA`` if the file is not ``{prompts: int[][]}`` or an id is outside the vocabulary.
    """
    try:
        prompts = json.loads(Path(path).read_text(encoding="utf-8"))["prompts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BridgeError("BAD_DATA", f"{path}: expected {{prompts: int[][]}}: {error}") from error
    if not isinstance(prompts, list) or not prompts:
        raise BridgeError("BAD_DATA", f"{path}: no prompts")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, list) or not prompt:
            raise BridgeError("BAD_DATA", f"{path}: prompts[{index}]: expected at least one token id")
        if not all(type(token) is int and 0 <= token < vocab_size for token in prompt):
            raise BridgeError("BAD_DATA", f"{path}: prompts[{index}]: expected token ids below {vocab_size}")
    return prompts
