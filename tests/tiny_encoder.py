"""A tiny BERT with random weights as a model folder, for metrics that need an encoder. Nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import torch

POSITIONS = 64
LAYERS = 3


def save_tiny_encoder(folder: Path, layers: int = LAYERS) -> Path:
    """Write an encoder of width 32 that knows the printable ASCII characters and takes 64 tokens; returns the folder."""
    from transformers import BertConfig, BertModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    characters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{one}" for one in characters)]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
    # transformers draws weights of 0.02, with which a token's place matters more than what it is.
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(5)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
