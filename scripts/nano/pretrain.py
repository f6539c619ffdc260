"""Pre-train nano, a small Qwen3ForCausalLM, from scratch on a CPU.

usage: pretrain.py CORPUS.jsonl TOKENIZER_FOLDER OUT_FOLDER [--steps N] [--threads N] [--seed N]
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SEGMENT_WEIGHT = {"prompt": 0.1, "answer": 1.0, "context": 0.0}
"""Weight of a token in the loss. Prompts are mostly chance, so they count little."""

BATCH_TOKENS = 2048
"""Padded tokens a step, at most."""

SORT_WINDOW_DOCUMENTS = 2048
"""Documents are sorted by length inside a window of this size, so that little padding is computed."""

LEARNING_RATE = 3e-3
"""Peak, for AdamW; chosen on a smaller model of the same kind."""

WARMUP_STEPS = 100
FINAL_LEARNING_RATE_FRACTION = 0.02
CHECKPOINT_SECONDS = 180.0
LOG_STEPS = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One encoded document: ``[T]`` token ids and ``[T]`` loss weights."""

    ids: list[int]
    weights: list[float]


def build_config(tokenizer: PreTrainedTokenizerBase) -> Qwen3Config:
    """Return the shape of nano: 1.8 million parameters in 8 layers, so that a middle third exists to be adapted."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=8,
        intermediate_size=384,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        dtype="float32",
    )


def load_rows(corpus: Path, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Encode the corpus segment by segment.

    Segments begin and end next to an added token or a line break, so their ids joined are the ids of the whole text.
    """
    with corpus.open(encoding="utf-8") as lines:
        documents = [json.loads(line)["segments"] for line in lines]
    texts = sorted({text for segments in documents for text, _ in segments})
    ids_of = dict(zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True))
    rows = []
    for segments in documents:
        row = Row([], [])
        for text, role in segments:
            ids = ids_of[text]
            row.ids.extend(ids)
            row.weights.extend([SEGMENT_WEIGHT[role]] * len(ids))
        rows.append(row)
    return rows


def cut_batches(rows: list[Row]) -> list[list[Row]]:
    """Cut rows, shortest first, into batches of at most ``BATCH_TOKENS`` padded tokens."""
    batches: list[list[Row]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if (len(batches[-1]) + 1) * len(row.ids) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return [batch for batch in batches if batch]


def iterate_batches(rows: list[Row], seed: int) -> Iterator[list[Row]]:
    """Yield batches for ever, each pass over the corpus in another order."""
    rng = random.Random(seed)
    while True:
        order = rng.sample(rows, len(rows))
        for start in range(0, len(order), SORT_WINDOW_DOCUMENTS):
            batches = cut_batches(order[start : start + SORT_WINDOW_DOCUMENTS])
            rng.shuffle(batches)
            yield from batches


def collate(batch: list[Row], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``[B, T]`` token ids, padded on the right, and ``[B, T]`` loss weights, zero on padding."""
    width = max(len(row.ids) for row in batch)
    ids = [row.ids + [pad_id] * (width - len(row.ids)) for row in batch]
    weights = [row.weights + [0.0] * (width - len(row.ids)) for row in batch]
    return torch.tensor(ids), torch.tensor(weights)


def weighted_loss(model: torch.nn.Module, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean of nats per token under the weights ``[B, T]`` of ids ``[B, T]``.

    No attention mask is passed: padding is on the right, so causal attention alone never lets a real token see it,
    and the fast causal kernel is kept.
    """
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    nats = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
    flat = weights[:, 1:].flatten()
    return (nats * flat).sum() / flat.sum()


def build_optimizer(model: torch.nn.Module) -> torch.optim.AdamW:
    """Return AdamW with decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)


def learning_rate_at(step: int, steps: int) -> float:
    """Return the rate of a step (from 0): linear warm-up, then a cosine to a fiftieth."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE * warmup * (FINAL_LEARNING_RATE_FRACTION + (1 - FINAL_LEARNING_RATE_FRACTION) * cosine)


def save_model(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Write the weights in bf16 with their config, leaving the model in training as it is."""
    copy = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.tie_weights()
    copy.generation_config.eos_token_id = model.config.eos_token_id
    copy.generation_config.pad_token_id = model.config.pad_token_id
    copy.to(torch.bfloat16).save_pretrained(folder)


def train(model: Qwen3ForCausalLM, batches: Iterator[list[Row]], steps: int, out: Path) -> None:
    """Run the steps; log to ``train_log.jsonl`` and save to ``checkpoint/`` every few minutes, to ``out`` at the end."""
    optimizer, pad_id = build_optimizer(model), model.config.pad_token_id
    started = saved = time.monotonic()
    tokens, losses = 0, []
    with (out / "train_log.jsonl").open("w", encoding="utf-8") as log:
        for step, batch in zip(range(steps), batches, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, steps)
            loss = weighted_loss(model, *collate(batch, pad_id))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens += sum(len(row.ids) for row in batch)
            losses.append(loss.item())
            now = time.monotonic()
            if (step + 1) % LOG_STEPS == 0:
                entry = {"step": step + 1, "loss": sum(losses) / len(losses), "tokens": tokens}
                log.write(json.dumps({**entry, "seconds": round(now - started, 1)}, allow_nan=False) + "\n")
                log.flush()
                losses.clear()
            if now - saved > CHECKPOINT_SECONDS:
                saved = now
                save_model(model, out / "checkpoint")
    save_model(model, out)


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=5500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Pre-train and save."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.tokenizer)
    model = Qwen3ForCausalLM(build_config(tokenizer))
    rows = load_rows(arguments.corpus, tokenizer)
    train(model, iterate_batches(rows, arguments.seed), arguments.steps, arguments.out)


if __name__ == "__main__":
    main()
