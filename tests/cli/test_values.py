from __future__ import annotations

import math

import pytest
import torch

from pomona.cli.values import dtype_of, settings, value_of
from pomona.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1,0.5]", [1, 0.5]),
        ("[-1,1e-3]", [-1, 0.001]),
        ("[1,[0,0.5,1]]", [1, [0, 0.5, 1]]),
        ("[[{filter: q_proj, value: [0, 1e-2]}, {value: 1}]]", [[{"filter": "q_proj", "value": [0, 0.01]}, {"value": 1}]]),
        ("factors", "factors"),
        ("true", True),
    ],
)
def test_values(text: str, value: object) -> None:
    assert value_of(text, "--weights", "Write it so") == value


def test_nan_is_a_number_to_be_refused_as_one() -> None:
    (found,) = value_of("[nan]", "--weights", "")
    assert math.isnan(found)


@pytest.mark.parametrize("text", ["[1", "[1,}", "{", "[2024-99-99]"])
def test_text_that_is_not_yaml(text: str) -> None:
    with pytest.raises(InputError, match=r"--weights: cannot be read .* Write it so\."):
        value_of(text, "--weights", "Write it so")


def test_settings() -> None:
    assert settings(["density=1e-1", "on=factors", "empty="]) == {"density": 0.1, "on": "factors", "empty": None}
    for bad in ("density", "=3", ""):
        with pytest.raises(InputError, match="--set: is not NAME=VALUE"):
            settings([bad])
    with pytest.raises(InputError, match="density is set twice"):
        settings(["density=1", "density=2"])


def test_dtypes() -> None:
    assert dtype_of("bfloat16") is torch.bfloat16
    with pytest.raises(InputError, match=r"--dtype: cannot be written \(got 'float61'\)\. Did you mean 'float16'"):
        dtype_of("float61")
