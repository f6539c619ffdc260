"""Trains with TRL's SFTTrainer."""

import tempfile
from dataclasses import asdict
from typing import Any

import trl.trainer.utils as trl_utils  # pyright: ignore[reportMissingImports]
from datasets import Dataset  # pyright: ignore[reportMissingImports]
from gate import Gate
from job import Job
from peft import LoraConfig
from setting import (
    EOS_TOKEN,
    PAD_TOKEN,
    SEED,
    build_model,
    drawn_rows,
    lora_shape,
    make_rows,
    set_first_weights,
    training_arguments,
)
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

from vivarium_bridge.layout import padded
from vivarium_bridge.masking import TokenRow

IGNORE_INDEX = -100


class TellingTrainer(SFTTrainer):
    """SFTTrainer, unchanged but for an ear on the loss: its own log is rounded and averaged over ten steps."""

    step_loss = 0.0

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One micro-batch, whose loss is its share of the step's."""
        loss = super().training_step(*args, **kwargs)
        self.step_loss += loss.item()
        return loss


class Turns(TrainerCallback):
    """Opens and closes the gate around each optimizer step."""

    def __init__(self, gate: Gate, longest: list[TokenRow]) -> None:
        self._gate = gate
        self._longest = longest
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compute the longest micro-batch once, as vivarium does before its first step, and forget it."""
        model = self.trainer.model
        layout = padded(self._longest, model.device)
        model(input_ids=layout.ids, labels=layout.ids, **layout.inputs).loss.backward()
        model.zero_grad()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait."""
        if state.global_step == 0:
            self._gate.ready(prepared={"gradient_checkpointing": args.gradient_checkpointing, "bf16": args.bf16})
        self.trainer.step_loss = 0.0
        self._gate.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell."""
        self._gate.done(self.trainer.step_loss)


def train(job: Job, gate: Gate) -> tuple[Any, dict[str, Any]]:
    """Make all steps, each when the gate opens.

    Returns:
        The trained model, and what is to be told of it.
    """
    if not job.scores_all:
        trl_utils._use_triton = lambda device: True  # looked at there only to decide which positions the head scores
    rows = make_rows(job.n_rows, job.shape.vocab_size)
    longest = sorted(rows, key=lambda row: len(row.ids))[-job.per_device_train_batch_size :]
    turns = Turns(gate, longest)
    with tempfile.TemporaryDirectory() as folder:
        trainer = TellingTrainer(
            model=build_model(job.shape),
            args=_config(job, folder),
            train_dataset=Dataset.from_list([_example(row) for row in drawn_rows(job, rows)]),
            processing_class=_tokenizer(),
            peft_config=LoraConfig(**asdict(lora_shape(job)), task_type="CAUSAL_LM", bias="none"),
            callbacks=[turns],
        )
        turns.trainer = trainer
        set_first_weights(trainer.model)
        trainer.train()
    return trainer.model, {}


def _config(job: Job, folder: str) -> Any:
    """TRL's defaults but for what the comparison fixes: order of the rows, hyper-parameters, no files, no progress."""
    training = training_arguments(job)
    return SFTConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=job.dtype == "bfloat16",
        gradient_checkpointing=job.gradient_checkpointing,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        max_steps=training.max_steps,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=training.warmup_steps,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=SEED,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _example(row: TokenRow) -> dict[str, list[int]]:
    labels = [token if wanted else IGNORE_INDEX for token, wanted in zip(row.ids, row.targets, strict=True)]
    return {"input_ids": row.ids, "labels": labels}


def _tokenizer() -> Any:
    """Rows come as tokens; the trainer only looks up how to pad."""
    vocabulary = {"<pad>": PAD_TOKEN, "<eos>": EOS_TOKEN}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
