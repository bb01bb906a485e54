from __future__ import annotations

import math

import pytest

from pomona.control import Trial


def test_a_trial_knows_its_mean() -> None:
    assert Trial(0.3, (-1.0, -2.0, 0.5, 0.5)).mean == -0.5
    assert Trial(0.3, (0.1,) * 10).mean == 0.1  # a running sum would be 0.09999999999999999


@pytest.mark.parametrize("scores", [(), (1.0, math.nan), (-math.inf,)])
def test_a_trial_without_finite_scores_is_refused(scores: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"the scores at prune ratio 0\.3 must be finite and at least one"):
        Trial(0.3, scores)
