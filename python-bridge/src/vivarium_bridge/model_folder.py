"""Whole models as folders that transformers loads: full checkpoints and merged adapters."""

import shutil
from pathlib import Path
from typing import Any

COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)
"""What belongs to a base and not to its weights: taken over byte by byte. Source: transformers
``tokenization_utils_base.py`` and ``generation/configuration_utils.py`` (5.23.0), names of files."""
ONE_FILE = 10**18
"""``max_shard_size`` in bytes, above any model, so that the name of the weights' file does not depend on their size."""


def fill_model_folder(folder: Path, model: Any, base_model_dir: str) -> None:
    """Write config and weights (tied ones once) into a folder, with the base's tokenizer and template.

    Args:
        folder: Empty.
        model: A transformers model, in the dtype to be written.
        base_model_dir: Where it was loaded from.
    """
    generation_config = model.generation_config
    # transformers validates these defaults when it writes them, and refuses those of some published bases.
    model.generation_config = type(generation_config)()
    try:
        model.save_pretrained(folder, max_shard_size=ONE_FILE)
    finally:
        model.generation_config = generation_config
    (folder / "generation_config.json").unlink(missing_ok=True)
    for name in COPIED_FILES:
        source = Path(base_model_dir) / name
        if source.is_file():
            shutil.copyfile(source, folder / name)
