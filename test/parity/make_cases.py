"""Makes random base models and PEFT adapters for the parity gate's tests, through transformers and PEFT themselves.

Usage: python make_cases.py OUT_DIR

Writes ``OUT_DIR/bases/<base>`` (a Hugging Face model folder), ``OUT_DIR/adapters/<base>/<id>`` (a PEFT folder)
and ``OUT_DIR/cases.json``. Weights are random from fixed seeds.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

# Source: Qwen/Qwen2.5-7B-Instruct tokenizer.json, pre_tokenizer.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCAB_SIZE = 320  # more than the tokenizer has, as in Qwen's own configs
N_LAYERS = 3
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.12,  # random logits then have a spread of a few nats, like a trained model's
    "bos_token_id": None,
    "eos_token_id": 258,
    "pad_token_id": 256,
}
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer in Qwen's form: 256 bytes, no merges, three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 512,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def make_base(name: str, seed: int, folder: Path) -> torch.nn.Module:
    """Write one random base model and return it."""
    torch.manual_seed(seed)
    if name.startswith("qwen3"):
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False))
        for key, parameter in model.named_parameters():
            if key.endswith(".bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return model.eval()


def adapter_kinds() -> dict[str, tuple[dict[str, Any], float]]:
    """Return id -> (LoraConfig arguments, standard deviation of B)."""
    one_layer: dict[str, Any] = {"target_modules": ["down_proj"], "layers_to_transform": [1]}
    kinds: dict[str, tuple[dict[str, Any], float]] = {}
    for r in (1, 8, 32):
        for use_rslora in (False, True):
            kind = f"r{r}-{'rslora' if use_rslora else 'plain'}"
            shape = {"r": r, "lora_alpha": 16, "use_rslora": use_rslora}
            kinds[f"{kind}-one-layer"] = ({**shape, **one_layer}, 0.05)
            kinds[f"{kind}-all-linear"] = ({**shape, "target_modules": ALL_LINEAR}, 0.01)
    patterns: dict[str, Any] = {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ALL_LINEAR,
        "rank_pattern": {"down_proj": 4, r"layers\.2\.self_attn\.q_proj": 16},
        "alpha_pattern": {"up_proj": 64, r"layers\.0\.mlp\.down_proj": 3},
    }
    kinds["patterns-plain"] = ({**patterns, "use_rslora": False}, 0.02)
    kinds["patterns-rslora"] = ({**patterns, "use_rslora": True}, 0.01)
    kinds["another-checkpoint"] = ({"r": 32, "lora_alpha": 16, "use_rslora": True, **one_layer}, 0.05)
    kinds["zero"] = ({"r": 8, "lora_alpha": 16, "use_rslora": True, "target_modules": ALL_LINEAR}, 0.0)
    kinds["faint"] = ({"r": 8, "lora_alpha": 16, "use_rslora": False, **one_layer}, 1e-7)
    return kinds


def make_adapter(base: torch.nn.Module, name: str, kind: tuple[dict[str, Any], float], folder: Path) -> None:
    """Write one adapter with a random A and B; the name is the seed."""
    arguments, b_std = kind
    torch.manual_seed(sum(map(ord, name)))
    model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", **arguments))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=b_std) if b_std > 0 else parameter.zero_()
    model.save_pretrained(folder)


def make_prompts() -> list[list[int]]:
    """Return eight prompts of bytes and special tokens, 1 to 40 tokens long."""
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 2, 7, 12, 19, 26, 33, 40]
    return [torch.randint(0, 259, (n,), generator=generator).tolist() for n in lengths]


def main(out: Path) -> None:
    """Make everything."""
    torch.set_num_threads(1)
    kinds = adapter_kinds()
    for seed, base in enumerate(("qwen3", "qwen2")):
        model = make_base(base, seed, out / "bases" / base)
        for name, kind in kinds.items():
            make_adapter(model, name, kind, out / "adapters" / base / name)
    (out / "prompts.json").write_text(json.dumps({"prompts": make_prompts()}))
    (out / "cases.json").write_text(json.dumps({"bases": ["qwen3", "qwen2"], "adapters": list(kinds)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
