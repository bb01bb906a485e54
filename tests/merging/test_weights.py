from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.errors import InputError
from pomona.merging.weights import Rule, check_weight, module_weights

LAYERS = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(5)]
NUMBERS = st.floats(-1e6, 1e6)


def one(spec: object, module: str, others: tuple[str, ...] = ()) -> float:
    return module_weights([spec], [module, *others])[module][0]  # pyright: ignore[reportArgumentType]


def test_numbers_are_the_same_everywhere_and_kept_in_the_adapters_order() -> None:
    assert module_weights([1, -0.5, 0], ["lm_head", LAYERS[0]]) == {"lm_head": [1.0, -0.5, 0.0], LAYERS[0]: [1.0, -0.5, 0.0]}


def test_a_list_is_interpolated_over_the_depth() -> None:
    found = module_weights([[0, 1], [0, 0.5, 0.3, 0.7, 1], [0, 1, 4], [8]], LAYERS)
    assert [found[module][0] for module in LAYERS] == [0, 0.25, 0.5, 0.75, 1]
    assert [found[module][1] for module in LAYERS] == [0, 0.5, 0.3, 0.7, 1]
    assert [found[module][2] for module in LAYERS] == [0, 0.5, 1, 2.5, 4]
    assert [found[module][3] for module in LAYERS] == [8, 8, 8, 8, 8]


def test_depth_is_that_of_the_highest_layer_among_the_modules() -> None:
    assert module_weights([[0, 1]], [LAYERS[1], LAYERS[4]]) == {LAYERS[1]: [0.25], LAYERS[4]: [1.0]}
    assert module_weights([[0, 1]], LAYERS[:2]) == {LAYERS[0]: [0.0], LAYERS[1]: [1.0]}


def test_the_layer_is_the_first_whole_number_of_the_path() -> None:
    expert = "model.layers.2.mlp.experts.7.down_proj"
    assert one([0, 1], expert, (LAYERS[4],)) == 0.5
    assert one([0, 1], "model.layers.2b.q_proj", (LAYERS[4],)) == 1.0  # "2b" is no number: outside the layers


def test_outside_the_layers_embeddings_are_first_and_the_rest_last() -> None:
    names = ["model.embed_tokens", "transformer.wte", "transformer.wpe", "gpt_neox.embed_in", "embed_out", "lm_head", "score"]
    assert [one([3, 5, 7], name, (LAYERS[4],)) for name in names] == [3, 3, 3, 3, 7, 7, 7]
    assert one([3, 5], LAYERS[0]) == 5  # the only layer of a model, as in mergekit


def test_entries_filter_by_a_part_of_the_path() -> None:
    spec = [{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": -2}, {"value": 0.5}]
    modules = ["model.layers.3.self_attn.v_proj", "model.layers.3.mlp.up_proj", "lm_head", LAYERS[4]]
    assert module_weights([spec], modules) == {modules[0]: [0.75], modules[1]: [-2.0], modules[2]: [0.5], modules[3]: [1.0]}


@pytest.mark.parametrize("last", [{"value": 3}, {"filter": "*", "value": 3}, {"filter": None, "value": [3]}])
def test_an_entry_for_the_rest(last: dict[str, object]) -> None:
    assert one([{"filter": "mlp", "value": 1}, last], LAYERS[0]) == 3


def test_a_module_that_no_entry_matches() -> None:
    specs = [1.0, [{"filter": "mlp", "value": 1}]]
    with pytest.raises(InputError) as caught:
        module_weights(specs, ["model.layers.0.mlp.up_proj", LAYERS[1]])
    assert str(caught.value) == (
        f"weights[1]: no entry's filter matches a module (got {LAYERS[1]!r}). Add an entry without a filter for the rest."
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("0.5", r"^w: must be a number \(got '0.5'\)"),
        (None, r"^w: must be a number \(got None\)"),
        (True, r"^w: must be a number \(got True\)"),
        (math.nan, r"^w: must be a finite number \(got nan\)"),
        (2e12, r"^w: must be at most 1,000,000,000,000: an adapter's update is multiplied by it \(got 2000000000000.0\)"),
        ([1, -1e13], r"^w\[1\]: must be at most 1,000,000,000,000"),
        (10**400, r"^w: must be a finite number \(got 1000"),
        ([], r"^w: is an empty list"),
        ([1, math.inf], r"^w\[1\]: must be a finite number \(got inf\)"),
        ([1, [2]], r"^w\[1\]: must be a number \(got \[2\]\)"),
        ([1, {"value": 2}], r"^w: mixes numbers and entries"),
        ({"value": 1}, r"^w: must be a number"),
        ([{"filter": "mlp"}], r"^w\[0\]: has no value \(got \{'filter': 'mlp'\}\)"),
        ([{"value": 1}, {"value": []}], r"^w\[1\]\.value: is an empty list"),
        ([{"value": "a"}], r"^w\[0\]\.value: must be a number \(got 'a'\)"),
        ([{"value": [0, False]}], r"^w\[0\]\.value\[1\]: must be a number \(got False\)"),
        ([{"value": {"filter": "mlp", "value": 1}}], r"^w\[0\]\.value: must be a number"),
        ([{"filter": 3, "value": 1}], r"^w\[0\]\.filter: must be a part of a module's path, or \* \(got 3\)"),
        ([{"filter": "", "value": 1}], r"^w\[0\]\.filter: must be a part"),
        ([{"filters": "mlp", "value": 1}], r"^w\[0\]: no such key \(got 'filters'\)\. Did you mean 'filter'\?"),
    ],
)
def test_what_is_refused(spec: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_weight(spec, "w")


def test_what_is_understood() -> None:
    assert check_weight(2, "w") == (Rule("*", (2.0,)),)
    assert check_weight((1, 2), "w") == (Rule("*", (1.0, 2.0)),)
    assert check_weight([{"filter": "mlp", "value": 1}, {"value": [2]}], "w") == (Rule("mlp", (1.0,)), Rule("*", (2.0,)))


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.integers(1, 6), st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True))
def test_a_list_of_equal_numbers_is_the_number(value: float, length: int, layers: list[int]) -> None:
    modules = [f"model.layers.{layer}.mlp.up_proj" for layer in layers]
    assert module_weights([[value] * length], modules) == module_weights([value], modules)


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6), st.integers(2, 50))
def test_the_ends_are_the_first_and_last_layers_and_the_rest_lies_between(values: list[float], layers: int) -> None:
    modules = [f"h.{layer}.attn.c_attn" for layer in range(layers)]
    found = [weights[0] for weights in module_weights([values], modules).values()]
    assert (found[0], found[-1]) == (values[0], values[-1])
    assert all(min(values) <= weight <= max(values) for weight in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["q_proj", "self_attn", "layers.1", "mlp", "*"]), NUMBERS), min_size=1, max_size=5))
def test_the_first_match_wins(entries: list[tuple[str, float]]) -> None:
    spec = [{"filter": pattern, "value": value} for pattern, value in entries]
    expected = [value for pattern, value in entries if pattern != "mlp"]  # all the others match
    if expected:
        assert one(spec, LAYERS[1]) == expected[0]
    else:
        with pytest.raises(InputError, match="no entry's filter matches"):
            one(spec, LAYERS[1])
