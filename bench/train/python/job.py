"""What a worker is asked to do: one JSON object on the first line of its stdin."""

import json
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Qwen2 model, named as in its config."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One way to train.

    Attributes:
        side: Who trains.
        shape: Of the model, whose weights are a function of it.
        rank: Of the adapter.
        target_modules: As in PEFT.
        layers_to_transform: As in PEFT; None is every layer.
        dtype: float32, or bfloat16 as each side does it: TRL by autocast over float32 weights, its default, vivarium
            by bfloat16 weights.
        n_rows: Of the data set.
        steps: Optimizer steps.
        per_device_train_batch_size: Rows of a micro-batch.
        gradient_accumulation_steps: Micro-batches of a step.
        gradient_checkpointing: TRL only.
        scores_all: TRL only: its head runs on all positions, as it does on a CPU, not on the targets, as on a GPU.
        batching: vivarium only.
        prefix_cache_dir: vivarium only; None is without the cache.
    """

    side: Literal["trl", "vivarium"]
    shape: Shape
    rank: int
    target_modules: list[str] | str
    layers_to_transform: list[int] | None
    dtype: Literal["float32", "bfloat16"]
    n_rows: int
    steps: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    scores_all: bool
    batching: Literal["in_order", "by_length", "packed"]
    prefix_cache_dir: str | None


def read_job(line: str) -> Job:
    """Parse a job; an unknown or missing key is an error."""
    fields: dict[str, Any] = json.loads(line)
    return Job(**{**fields, "shape": Shape(**fields["shape"])})
