"""Each tiny model is built once; a test that changes one must put it back, which is what `attached` promises to do."""

from __future__ import annotations

import pytest
from tests.tiny import ARCHITECTURES, tiny_backbone

from pomona.backbone.load import Backbone


@pytest.fixture(scope="session")
def llama() -> Backbone:
    return tiny_backbone("llama")


@pytest.fixture(scope="session", params=ARCHITECTURES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return tiny_backbone(request.param)
