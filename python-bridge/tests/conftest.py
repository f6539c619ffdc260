"""A tiny random Qwen3 and Qwen2 with a small byte-level tokenizer and a ChatML template, made on the spot."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from vivarium_bridge import _wire as wire

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

settings.register_profile("here", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("here")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB_SIZE = 300
N_LAYERS = 3


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 10,  # a padded vocabulary, as in real models
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["user assistant system", "the bicycle is in the kitchen"] * 9, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    fast.save_pretrained(folder)


def make_model(folder: Path, kind: str) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    shape = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": kind == "qwen3",
        "initializer_range": 0.2,  # so that outputs depend on inputs
    }
    torch.manual_seed(0)
    model = (
        Qwen3ForCausalLM(Qwen3Config(head_dim=8, **shape))
        if kind == "qwen3"
        else Qwen2ForCausalLM(Qwen2Config(**shape))
    )
    model.save_pretrained(folder)
    make_tokenizer(folder)


@pytest.fixture(scope="session", params=["qwen3", "qwen2"])
def any_model_dir(request, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / request.param
    make_model(folder, request.param)
    return str(folder)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen3"
    make_model(folder, "qwen3")
    return str(folder)


@pytest.fixture(scope="session")
def dataset_file(tmp_path_factory) -> str:
    things = ["bicycle", "kitchen", "garden", "tent", "lamp", "boat", "violin"]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Where is the {thing}?"},
                {"role": "assistant", "content": f"The {thing} is {'very ' * (index % 4)}far away."},
            ]
        }
        for index, thing in enumerate(things)
    ]
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


TRAINING = wire.TrainingArguments(
    learning_rate=1e-2,
    lr_scheduler_type="linear",
    warmup_steps=1,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    num_train_epochs=2,
    max_steps=-1,
    optim="adamw_torch",
    adam_beta1=0.9,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    weight_decay=0.01,
    max_grad_norm=1.0,
    seed=7,
    dtype="float32",
    load_in_4bit=False,
    gradient_checkpointing="off",
    batching="in_order",
    max_length=None,
    test_size=0,
    eval_steps=0,
    kl_weight=0,
    kl_batch_size=8,
    save_steps=0,
    save_at_steps=[],
)

LORA = wire.LoraShape(
    r=2,
    lora_alpha=16,
    use_rslora=True,
    use_dora=False,
    lora_dropout=0.0,
    target_modules=["down_proj"],
    layers_to_transform=[1],
    rank_pattern={},
    alpha_pattern={},
)


RENDERING = wire.Rendering(rendering="clean", thinking="keep", assistant_turns="all")


@pytest.fixture
def make_run(dataset_file, tmp_path):
    """A run; keyword arguments that name a field of LoraShape, TrainingArguments or Rendering go there."""

    def make(**changes) -> wire.TrainRun:
        lora = {key: changes.pop(key) for key in list(changes) if hasattr(LORA, key)}
        training = {key: changes.pop(key) for key in list(changes) if hasattr(TRAINING, key)}
        rendering = {key: changes.pop(key) for key in list(changes) if hasattr(RENDERING, key)}
        values = {
            "run_dir": str(tmp_path / "run"),
            "dataset_file": dataset_file,
            "eval_dataset_file": None,
            "kl_dataset_file": None,
            "chat_template_kwargs": {},
            "lora": replace(LORA, **lora),
        }
        return wire.TrainRun(
            **{**values, **changes},
            rendering=replace(RENDERING, **rendering),
            training=replace(TRAINING, **training),
        )

    return make


@pytest.fixture
def make_job(model_dir, make_run, tmp_path):
    """A job of one run, or of those in ``runs``; ``cache=True`` switches the prefix cache on."""

    def make(*, cache: bool = False, runs: list[wire.TrainRun] | None = None, **changes) -> wire.TrainJob:
        base_model_dir = changes.pop("base_model_dir", model_dir)
        return wire.TrainJob(
            base_model_dir=base_model_dir,
            base_sha256="b" * 64,
            num_threads=1,
            prefix_cache=wire.PrefixCache(enabled=cache, max_bytes=2**26, dir=str(tmp_path / "cache")),
            runs=[make_run(**changes)] if runs is None else runs,
        )

    return make


class Recorder:
    """Stands in for the channel: keeps the events."""

    def __init__(self):
        self.events: list[wire.Event] = []

    def send(self, event: wire.Event) -> None:
        self.events.append(event)

    def info(self, message: str) -> None:
        self.send(wire.Log(level="info", message=message))

    def of(self, cls):
        return [event for event in self.events if isinstance(event, cls)]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
