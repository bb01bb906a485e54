"""`pool`: a run merges the best of its sources."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pomona.runs.section import Section

By = Literal["loss", "gradient"]


class Pool(Section):
    """Which of the sources are merged: the best on the training examples (`pomona.backbone.pool`).

    Args:
        top: how many, >= 1.
        by: `loss`, the lowest mean loss of the model with the source alone; `gradient`, the highest agreement of its update with a
            step down the loss.
    """

    top: int = Field(ge=1)
    by: By = "loss"
