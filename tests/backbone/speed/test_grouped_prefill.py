"""Prompts read in groups leave the logits and the cache that reading them together leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny import VOCABULARY, tiny_backbone
from transformers.cache_utils import DynamicCache

from pomona.backbone.speed import grouped_prefill as room
from pomona.backbone.speed.grouped_prefill import positions, prefill

LENGTHS = [5, 40, 9, 38, 17, 4, 16, 40, 3, 21, 33, 8]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=generator)
    content = torch.tensor([[0] * (max(LENGTHS) - length) + [1] * length for length in LENGTHS])
    return tokens * content, content


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen2", "gpt2"])
def test_groups_give_what_one_by_one_gives_and_go_on_alike(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3's window (of the tiny one: see tests/tiny.py) is shorter than the longest prompts and longer than the shortest."""
    model: Any = tiny_backbone(architecture).model
    tokens, content = batch()
    read: list[tuple[int, ...]] = []
    forward = model.forward

    def seen(**arguments: Any) -> Any:
        read.append(tuple(arguments["input_ids"].shape))
        return forward(**arguments)

    monkeypatch.setattr(model, "forward", seen)
    with torch.no_grad():
        logits, cache = prefill(model, tokens, content, DynamicCache(config=model.config))
        assert len(read) > 2
        assert sum(rows * length for rows, length in read) < 1.25 * sum(LENGTHS)
        new, after = torch.full((len(LENGTHS), 1), 7), logits
        for _ in range(3):  # goes on past the prompts, so that a window moves
            content = torch.cat([content, torch.ones_like(new)], dim=1)
            after = model(
                input_ids=new, attention_mask=content, position_ids=positions(content)[:, -1:], past_key_values=cache
            ).logits[:, -1]
        for row, length in enumerate(LENGTHS):
            alone = tokens[row : row + 1, max(LENGTHS) - length :]
            torch.testing.assert_close(logits[row], model(input_ids=alone).logits[0, -1], atol=1e-5, rtol=0)
            longer = torch.cat([alone, new[:1], new[:1], new[:1]], dim=1)
            torch.testing.assert_close(after[row], model(input_ids=longer).logits[0, -1], atol=1e-5, rtol=0)


def test_a_cache_of_another_kind_is_filled_in_one_go() -> None:
    class Other(DynamicCache):
        pass

    model: Any = tiny_backbone().model
    assert room._can_be_joined(DynamicCache(config=model.config))
    assert not room._can_be_joined(Other(config=model.config))
    tokens, content = batch()
    with torch.no_grad():
        together, _ = prefill(model, tokens, content, Other(config=model.config))
        apart, _ = prefill(model, tokens, content, DynamicCache(config=model.config))
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
