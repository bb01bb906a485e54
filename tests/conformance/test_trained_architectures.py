"""Twenty architectures, in float32 and bfloat16: loaded, trained, pruned, exported; PEFT judges the exported adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from benchmarks.tiny_architectures import ARCHITECTURES, VOCABULARY
from tests.tiny import tiny_examples, tiny_tokenizer
from transformers import AutoModelForCausalLM

from pomona.adapters import Adapter, Factors, read_adapter, write_adapter
from pomona.backbone.attach import attached, new_adapter
from pomona.backbone.batches import Encoded
from pomona.backbone.load import load_backbone
from pomona.backbone.loss import example_losses
from pomona.control import Fixed
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Pruning, Tuning

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own, about old names and models of this size

NAMES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3 text",
    "phi3",
    "granite",
    "olmo2",
    "smollm3",
    "cohere",
    "starcoder2",
    "gpt2",
    "gpt-neo",
    "gpt-neox",
    "gpt-j",
    "opt",
    "bloom",
    "falcon",
    "qwen2-moe",
)
TUNING = Tuning(epochs=1, batch_size=4, learning_rate=0.01, dropout=0.0)
EXAMPLES = tiny_examples(8, seed=5)


def started(adapter: Adapter) -> Adapter:
    """With a B that is not zero, so that the update counts from the start."""
    generator = torch.Generator().manual_seed(1)
    factors = {
        path: Factors(pair.A, torch.randn(pair.B.shape, generator=generator) * 0.1, 1.0) for path, pair in adapter.factors.items()
    }
    return Adapter(factors, adapter.base_model, adapter.provenance)


@torch.no_grad()
def losses_of(model: Any, examples: list[Encoded]) -> list[float]:
    found = []
    for one in examples:
        logits = model(input_ids=torch.tensor([one.tokens])).logits[0].float()
        found.append(
            float(F.cross_entropy(logits[one.completion_start - 1 : -1], torch.tensor(one.tokens[one.completion_start :])))
        )
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_peft_finds_in_the_exported_adapter_what_was_trained(name: str, dtype: str, tmp_path: Path) -> None:
    ARCHITECTURES[name].build().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    assert len(tiny_tokenizer()) <= VOCABULARY
    backbone = load_backbone(str(tmp_path / "model"), "cpu", dtype)
    start = started(new_adapter(backbone, "all-linear", 2, 2.0, torch.Generator().manual_seed(0)))
    bare = example_losses(backbone, EXAMPLES, 4)
    with attached(backbone, [start]) as attachment:
        before = example_losses(backbone, EXAMPLES, 4)
        trained = fit(attachment, FitData(EXAMPLES), TUNING, pruning=Pruning(), controller=Fixed(0.3)).adapter
        assert sum(example_losses(backbone, EXAMPLES, 4)) < sum(before)
    write_adapter(trained, tmp_path / "adapter")
    with attached(backbone, [read_adapter(tmp_path / "adapter")]) as attachment, attachment.folded():
        ours = example_losses(backbone, EXAMPLES, 4)
    zeros = sum(int((side == 0).sum()) for pair in trained.factors.values() for side in (pair.A, pair.B))
    entries = sum(side.numel() for pair in trained.factors.values() for side in (pair.A, pair.B))
    assert zeros / entries == pytest.approx(0.3, abs=0.05)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=backbone.model.dtype)
    theirs = losses_of(peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval(), EXAMPLES)
    effect = sum(abs(one - other) for one, other in zip(theirs, bare, strict=True))
    error = sum(abs(one - other) for one, other in zip(theirs, ours, strict=True))
    assert effect > 0.05
    assert error < (1e-4 if dtype == "float32" else 0.1) * effect
