"""Train the tokenizer of nano on its corpus and save it the way Qwen's is laid out.

usage: tokenizer.py CORPUS.jsonl OUT_FOLDER
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_TOKENS = 2048
"""Size of the whole vocabulary: 256 bytes, merges, and the five added tokens."""

TRAINING_DOCUMENTS = 15_000
"""More documents change no merge: the corpus has only a few hundred distinct words."""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NOT_SPECIAL = ["<think>", "</think>"]
"""Added but not special, as in Qwen3: they survive `skip_special_tokens`."""

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Source: `pre_tokenizer` of Qwen2's and Qwen3's tokenizer.json."""

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if loop.last and message.role == 'assistant' and enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{{- message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{%- endif %}"
)
"""ChatML as Qwen3 renders it, less tools and reasoning: without thinking, the last answer has an empty think block."""

_ADDED = re.compile("|".join(re.escape(token) for token in SPECIAL + NOT_SPECIAL))


def iterate_plain_text(corpus: Path) -> Iterator[str]:
    """Yield the text of each document between its added tokens, so that no merge can cross one."""
    with corpus.open(encoding="utf-8") as lines:
        for _, line in zip(range(TRAINING_DOCUMENTS), lines, strict=False):
            text = "".join(segment[0] for segment in json.loads(line)["segments"])
            yield from (part for part in _ADDED.split(text) if part)


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """Return a byte-level BPE with Qwen2's splits, NFC, and ids without a gap."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_TOKENS - len(SPECIAL) - len(NOT_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in NOT_SPECIAL])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, with the chat template inside the latter as Qwen has it.

    Raises:
        ValueError: If the vocabulary is not full: the ids of the added tokens would leave holes in the embedding.
    """
    if tokenizer.get_vocab_size() != VOCAB_TOKENS:
        raise ValueError(f"vocabulary: expected {VOCAB_TOKENS} tokens, got {tokenizer.get_vocab_size()}")
    folder.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder, save_jinja_files=False)


def main() -> None:
    """Read the corpus, train, save."""
    corpus, folder = Path(sys.argv[1]), Path(sys.argv[2])
    save_tokenizer(train_tokenizer(iterate_plain_text(corpus)), folder)


if __name__ == "__main__":
    main()
