from __future__ import annotations

from typing import Literal

import pytest

from pomona.errors import InputError
from pomona.merging.parameters import check_choice, check_share


@pytest.mark.parametrize("value", [1e-9, 0.5, 1, 1.0])
def test_shares(value: float) -> None:
    check_share("density", value)
    check_share("density", value, zero=True)
    check_share("gamma", 0, zero=True)


@pytest.mark.parametrize("value", [-0.1, 1.01, 20, float("nan"), float("inf"), True, "0.5", None])
def test_what_is_no_share(value: object) -> None:
    with pytest.raises(InputError, match=r"^density: must be in \(0, 1\] \(got "):
        check_share("density", value)
    with pytest.raises(InputError, match=r"^gamma: must be in \[0, 1\] \(got "):
        check_share("gamma", value, zero=True)


def test_zero_is_no_share_unless_it_is_allowed() -> None:
    with pytest.raises(InputError, match=r"density: must be in \(0, 1\] \(got 0\.0\)"):
        check_share("density", 0.0)


def test_choices() -> None:
    check_choice("on", "deltas", Literal["deltas", "factors"])
    with pytest.raises(InputError, match=r"^on: must be one of deltas, factors \(got \['deltas'\]\)$"):
        check_choice("on", ["deltas"], Literal["deltas", "factors"])
