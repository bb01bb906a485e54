from __future__ import annotations

import math

import pytest
import torch

from pomona.api.dtype import dtype_of
from pomona.backbone.decoding import Decoding
from pomona.cli.values import columns_of, decoding_of, metrics_of, refuse_given, settings, value_of
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


@pytest.mark.parametrize("text", ["[1", "[1,}", "{", "[0b_]"])
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


def test_columns() -> None:
    assert columns_of([]) == {}
    assert columns_of(["document=abstract", "answers=gold.text", "group=a=b"]) == {
        "document": "abstract", "answers": "gold.text", "group": "a=b",
    }  # fmt: skip
    for bad in ("document", "=abstract", "document=", ""):
        with pytest.raises(InputError, match=r"--column: is not FIELD=COLUMN .* Write for example --column document=abstract\."):
            columns_of([bad])
    with pytest.raises(InputError, match="--column: document is mapped twice"):
        columns_of(["document=a", "document=b"])


def test_metrics() -> None:
    assert metrics_of(None) is metrics_of([]) is None
    assert metrics_of(["bleu", "{name: bert_score, layer: 3}"]) == ["bleu", {"name": "bert_score", "layer": 3}]
    with pytest.raises(InputError, match="--metric: cannot be read"):
        metrics_of(["{name: bleu"])


def test_decoding() -> None:
    assert decoding_of(None) is decoding_of([]) is None
    assert decoding_of(["num_beams=4", "length_penalty=2"]) == Decoding(num_beams=4, length_penalty=2)
    assert decoding_of(["temperature=7e-1", "seed=3"]) == Decoding(temperature=0.7, seed=3)
    for given, message in (
        (["num_beam=4"], r"--decode: no such setting \(got 'num_beam'\)\. Did you mean 'num_beams'\?"),
        (["num_beams"], r"--decode: is not NAME=VALUE .* Write for example --decode num_beams=4"),
        (["num_beams=2", "num_beams=3"], "--decode: num_beams is set twice"),
        (["num_beams=four"], r"num_beams: a whole number of at least 1 is expected \(got 'four'\)"),
        (["num_beams=2.0"], "num_beams: a whole number of at least 1 is expected"),
        (["temperature="], r"temperature: a number at least 0 is expected \(got None\)"),
        (["temperature=.nan"], "temperature: a number at least 0 is expected"),
        (["num_beams=2", "temperature=1"], "a beam search draws nothing"),
    ):
        with pytest.raises(InputError, match=message):
            decoding_of(given)


def test_options_without_an_effect() -> None:
    refuse_given({"--one": None, "--two": []}, "nothing is to be done")
    for value in ("x", ["x"], 0, ""):
        with pytest.raises(InputError, match=r"--two: has no effect: nothing is to be done\. Leave it out\."):
            refuse_given({"--one": None, "--two": value}, "nothing is to be done")


def test_dtypes() -> None:
    assert dtype_of("bfloat16") is torch.bfloat16
    with pytest.raises(InputError, match=r"--dtype: cannot be written \(got 'float61'\)\. Did you mean 'float16'"):
        dtype_of("float61")
