"""What is lost to the rank, by hand."""

from __future__ import annotations

import pytest

from pomona.adapters.truncated import Loss
from pomona.merging.rank_loss import percent, rank_loss, rank_warning

NOTHING = {"relative": 0.0, "worst_module": None, "worst": 0.0}


def test_squares_are_summed_over_all_modules_and_the_worst_is_by_its_own_share() -> None:
    losses = {"a": Loss(9.0, 100.0), "b": Loss(0.0, 60.0), "c": Loss(1.0, 9.0)}
    assert rank_loss(losses) == {
        "relative": pytest.approx((10 / 169) ** 0.5),
        "worst_module": "c",
        "worst": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize("losses", [{}, {"a": Loss(0.0, 0.0)}, {"a": Loss(0.0, 4.0)}, {"a": Loss(3e-12, 4.0), "b": Loss(0.0, 0.0)}])
def test_nothing_is_lost_by_rounding_or_of_nothing(losses: dict[str, Loss]) -> None:
    assert rank_loss(losses) == NOTHING
    assert rank_warning(losses, dict.fromkeys(losses, 3)) == []


def test_a_warning_from_ten_percent_on() -> None:
    assert rank_warning({"a": Loss(0.99, 100.0)}, {"a": 3}) == []
    (said,) = rank_warning({"a": Loss(1.0, 100.0)}, {"a": 3})
    assert said == "the merge lost 10% of its update to rank 3; a higher rank (`rank`) loses less"


def test_the_rank_that_is_enough() -> None:
    # The squares that are left must be below 0.05^2 * 100 = 0.25: at rank 3 they are 9 + 0.2 + 0.15, at rank 4 0.2.
    values = {"a": (3.0, 0.2**0.5), "b": (2.0, 1.0, 0.15**0.5)}
    losses = {name: Loss(sum(value**2 for value in rest), 50.0, rest) for name, rest in values.items()}
    (said,) = rank_warning(losses, {"a": 3, "b": 1})
    assert said.endswith("to rank 3; rank 4 (`rank` 4) loses less than 5%")
    # No module may get less than it has.
    (said,) = rank_warning({**losses, "c": Loss(0.0, 0.0, ())}, {"a": 3, "b": 1, "c": 32})
    assert said.endswith("to rank 32; rank 32 (`rank` 32) loses less than 5%")
    (said,) = rank_warning({**losses, "c": Loss(1.0, 1.0)}, {"a": 3, "b": 1, "c": 1})
    assert said.endswith("a higher rank (`rank`) loses less")


@pytest.mark.parametrize(("share", "text"), [(0.41234, "41.2%"), (1.0, "100%"), (0.0012345, "0.123%")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
