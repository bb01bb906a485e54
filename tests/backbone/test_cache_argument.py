"""The name of a model's cache, which transformers changed in 5.24."""

from __future__ import annotations

from typing import Any

import torch
from tests.tiny import tiny_model

from pomona.backbone.cache_argument import cache_argument


class New(torch.nn.Module):
    def forward(self, input_ids: Any, cache: Any = None) -> Any:
        raise NotImplementedError


class Old(torch.nn.Module):
    def forward(self, input_ids: Any, past_key_values: Any = None, use_cache: bool = True) -> Any:
        raise NotImplementedError


def test_the_name_is_that_of_the_model() -> None:
    made: list[Any] = [New(), Old()]
    assert [cache_argument(model) for model in made] == ["cache", "past_key_values"]


def test_a_model_fills_the_cache_that_it_is_given_by_this_name() -> None:
    from transformers import DynamicCache

    model, cache = tiny_model(), DynamicCache()
    model(input_ids=torch.tensor([[3, 5, 7]]), **{cache_argument(model): cache})
    assert cache.get_seq_length() == 3
