from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_progress_bars() -> None:
    """transformers draws one for every model that is saved or loaded."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
