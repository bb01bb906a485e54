"""Two tiny frozen models for the whole room: training changes attached factors only."""

from __future__ import annotations

import pytest
from tests.tiny import tiny_backbone

from pomona.backbone.load import Backbone


@pytest.fixture(scope="session")
def llama() -> Backbone:
    return tiny_backbone("llama")


@pytest.fixture(scope="session")
def sharp() -> Backbone:
    """One whose head lets it become sure of a token, and so learn by heart and overfit."""
    backbone = tiny_backbone("llama")
    backbone.model.get_parameter("lm_head.weight").data.mul_(5)
    return backbone
