"""What both sides share: model, rows, first weights of the adapter, hyper-parameters. All are pure functions."""

import math
import random
import zlib
from dataclasses import replace
from typing import Any, Literal

from job import Job, Shape

from vivarium_bridge import _wire as wire
from vivarium_bridge.batching import micro_batches
from vivarium_bridge.masking import TokenRow
from vivarium_bridge.order import step_window, steps_per_epoch

SEED = 1
MAX_TOKENS = 256
PAD_TOKEN = 0
EOS_TOKEN = 1
FIRST_PLAIN_TOKEN = 5


def build_model(shape: Shape) -> Any:
    """A Qwen2 model with random float32 weights, all frozen."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS_TOKEN,
        pad_token_id=PAD_TOKEN,
    )
    model: Any = Qwen2ForCausalLM(config)
    return model.requires_grad_(False)


def make_rows(n_rows: int, vocabulary: int) -> list[TokenRow]:
    """Rows of random tokens, with lengths as in chat data.

    Prompts have 8 to 96 tokens around 40, answers at least 8 around 95, log-normal; together at most 256. The answer
    with its end token is the target.
    """
    draw = random.Random(SEED)
    rows: list[TokenRow] = []
    for _ in range(n_rows):
        prompt = int(min(96, max(8, draw.lognormvariate(math.log(40), 0.5))))
        answer = int(min(MAX_TOKENS - prompt, max(8, draw.lognormvariate(math.log(95), 0.6))))
        ids = [draw.randrange(FIRST_PLAIN_TOKEN, vocabulary) for _ in range(prompt + answer - 1)]
        rows.append(TokenRow([*ids, EOS_TOKEN], [False] * prompt + [True] * answer))
    return rows


def training_arguments(job: Job) -> wire.TrainingArguments:
    """The hyper-parameters of both sides; TRL's own names for them are in ``trl_side``."""
    return wire.TrainingArguments(
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=0,
        per_device_train_batch_size=job.per_device_train_batch_size,
        gradient_accumulation_steps=job.gradient_accumulation_steps,
        num_train_epochs=1.0,
        max_steps=job.steps,
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.01,
        max_grad_norm=1.0,
        seed=SEED,
        dtype=job.dtype,
        load_in_4bit=False,
        gradient_checkpointing="auto",
        batching=job.batching,
        max_length=None,
        test_size=0.0,
        eval_steps=0,
        kl_weight=0.0,
        kl_batch_size=0,
        save_steps=0,
        save_at_steps=[],
    )


def lora_shape(job: Job) -> wire.LoraShape:
    """The adapter; ``lora_alpha`` is 16 at rank 1 and 2 r above."""
    return wire.LoraShape(
        r=job.rank,
        lora_alpha=16.0 if job.rank == 1 else 2.0 * job.rank,
        use_rslora=False,
        use_dora=False,
        lora_dropout=0.0,
        target_modules=job.target_modules,
        layers_to_transform=job.layers_to_transform,
        rank_pattern={},
        alpha_pattern={},
    )


def drawn_rows(job: Job, rows: list[TokenRow]) -> list[TokenRow]:
    """All rows of all steps, one after another, in vivarium's order."""
    training = training_arguments(job)
    return [rows[index] for step in range(job.steps) for index in step_window(training, len(rows), step)]


def describe_rows(job: Job) -> dict[str, int]:
    """Sizes of the data set; slots are positions that are computed in one epoch, padding included."""
    rows = make_rows(job.n_rows, job.shape.vocab_size)
    return {
        "rows": len(rows),
        "tokens": sum(len(row.ids) for row in rows),
        "target_tokens": sum(row.n_targets for row in rows),
        "slots_in_order": _slots(job, rows, "in_order"),
        "slots_by_length": _slots(job, rows, "by_length"),
    }


def _slots(job: Job, rows: list[TokenRow], batching: Literal["in_order", "by_length"]) -> int:
    training = replace(training_arguments(job), batching=batching)
    windows = [step_window(training, len(rows), step) for step in range(steps_per_epoch(training, len(rows)))]
    batches = [batch for window in windows for batch in micro_batches(rows, window, training)]
    return sum(len(batch) * max(len(rows[index].ids) for index in batch) for batch in batches)


def trained_parameters(model: Any) -> dict[str, Any]:
    """Trained parameters by PEFT's name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def first_weights(name: str, shape: tuple[int, ...]) -> Any:
    """An adapter's matrix before the first step: a function of its name, and not zero, so that all get a gradient."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    deviation = 0.02 if ".lora_A." in name else 0.005
    return torch.randn(shape, generator=generator) * deviation


def set_first_weights(model: Any) -> None:
    """Give an adapter the weights with which both sides begin."""
    import torch

    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            parameter.copy_(first_weights(name, tuple(parameter.shape)))
