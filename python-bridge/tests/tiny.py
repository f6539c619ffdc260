"""Tiny random models, rows of random tokens, and a training loop that shares nothing with the bridge's."""

import random
from typing import Any

import torch

from vivarium_bridge import _wire as wire
from vivarium_bridge.cancel import Cancellation
from vivarium_bridge.loop import Loop
from vivarium_bridge.masking import TokenRow

torch.set_num_threads(1)

N_LAYERS = 4
VOCABULARY = 97
KINDS = ("qwen2", "qwen3")


def training(**changes) -> wire.TrainingArguments:
    values = {
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "num_train_epochs": 2.0,
        "max_steps": -1,
        "optim": "adamw_torch",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "seed": 3,
        "dtype": "float32",
        "load_in_4bit": False,
        "gradient_checkpointing": "off",
        "batching": "in_order",
        "max_length": None,
        "test_size": 0.0,
        "eval_steps": 0,
        "kl_weight": 0.0,
        "kl_batch_size": 3,
        "save_steps": 0,
        "save_at_steps": [],
    }
    return wire.TrainingArguments(**{**values, **changes})


def causal_lm(kind: str = "qwen3", **changes) -> Any:
    """A frozen random model in evaluation mode, always the same."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": kind == "qwen3",
        "initializer_range": 0.2,
        **changes,
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = (
            Qwen3ForCausalLM(Qwen3Config(head_dim=8, **shape))
            if kind == "qwen3"
            else Qwen2ForCausalLM(Qwen2Config(**shape))
        )
        if kind == "qwen2":  # biases start at zero, and would hide that they were forgotten
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False).eval()


def adapted(model, *, warm: bool = True, **lora) -> Any:
    """Put LoRA on a model; ``warm``: B is random, so that the adapter does something from the start."""
    from peft import LoraConfig, get_peft_model

    shape = {"r": 1, "lora_alpha": 4, "target_modules": ["down_proj"], "layers_to_transform": [2], **lora}
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        peft_model = get_peft_model(model, LoraConfig(**shape, task_type="CAUSAL_LM"))
        if warm:
            for name, parameter in peft_model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
    return peft_model


def token_rows(n: int = 20, seed: int = 0, shortest: int = 4, longest: int = 24) -> list[TokenRow]:
    """Rows with targets in one or two stretches."""
    draw = random.Random(seed)
    rows: list[TokenRow] = []
    for _ in range(n):
        length = draw.randint(shortest, longest)
        first = draw.randint(1, length - 1)
        gap = draw.randint(first, length)
        targets = [first <= index and index != gap for index in range(length)]
        if not any(targets):
            targets[-1] = True
        rows.append(TokenRow([draw.randrange(VOCABULARY) for _ in range(length)], targets))
    return rows


def make_loop(model, rows, arguments, *, cache=None, kl_rows=(), steps=4, info=None) -> Loop:
    """A loop that is ready to run."""
    loop = Loop(model, rows, list(kl_rows), arguments, steps, cache, info or (lambda _message: None))
    loop.prepare(Cancellation())
    return loop


def run(loop: Loop, steps: int = 4):
    """Make some steps; returns their statistics."""
    return [loop.run_step(step, Cancellation()) for step in range(steps)]


def weights(loop: Loop) -> torch.Tensor:
    """All trained weights as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in loop.parameters.values()])


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def rel_diff(found, wanted) -> float:
    """Norm of the difference over the norm."""
    return ((found - wanted).norm() / wanted.norm()).item()


def plain_batch(rows: list[TokenRow]):
    """Ids, attention mask and labels as a collator of transformers makes them."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        for place, (token, is_target) in enumerate(zip(row.ids, row.targets, strict=True)):
            ids[index, place] = token
            mask[index, place] = 1
            if is_target:
                labels[index, place] = token
    return ids, mask, labels


def plain_loss(model, rows: list[TokenRow]) -> Any:
    """Sum of cross entropies from the logits of the whole model."""
    ids, mask, labels = plain_batch(rows)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return torch.nn.functional.cross_entropy(flat, labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")


def trainer_groups(model, arguments) -> list[tuple[float, list[torch.nn.Parameter]]]:
    """Trained parameters by weight decay, as ``Trainer.create_optimizer`` puts them; none of no parameters."""
    from transformers import Trainer

    decayed = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        (arguments.weight_decay, [p for name, p in trained if name in decayed]),
        (0.0, [p for name, p in trained if name not in decayed]),
    ]
    return [(decay, group) for decay, group in groups if group]


def reference_training(model, rows, batches_of_steps, arguments, rates) -> list[float]:
    """Plain PEFT, plain logits, plain AdamW: what the bridge's loop must equal. Returns the losses."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": group, "weight_decay": decay} for decay, group in trainer_groups(model, arguments)]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    losses: list[float] = []
    for batches, rate in zip(batches_of_steps, rates, strict=True):
        optimizer.zero_grad()
        n_targets = sum(sum(rows[index].targets) for batch in batches for index in batch)
        total = 0.0
        for batch in batches:
            loss = plain_loss(model, [rows[index] for index in batch]) / n_targets
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, arguments.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(total)
    return losses
