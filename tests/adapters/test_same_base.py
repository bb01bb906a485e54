"""Is it the base that an adapter was trained on? Identities decide where there are any, else folders, else names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import save_tiny_model, tiny_adapter, tiny_backbone

from pomona.adapters import Adapter, read_adapter, write_adapter
from pomona.adapters.base_identity import BaseIdentity
from pomona.adapters.carried_config import carried
from pomona.adapters.compatible import check_compatible
from pomona.adapters.export import compress, export_peft
from pomona.adapters.same_base import BASE, Base, base_of, base_warnings, differences
from pomona.backbone.attach import attached, new_adapter
from pomona.merging import merge

ONE = BaseIdentity("llama", 32, 2, 300, "a")
TUNED = replace(ONE, weights="b")
WIDE = replace(ONE, vocabulary=320, weights="c")
SIZES = replace(ONE, weights=None)


def adapter(name: str | None, identity: BaseIdentity | None = None) -> Adapter:
    return Adapter({}, name, {} if identity is None else {BASE: identity.as_json()})


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (Base("a", ONE), Base("a", ONE), None),
        (Base("a", ONE), Base("elsewhere/b", ONE), None),
        (Base(None, ONE), Base("b", ONE), None),
        (Base("a", ONE), Base("a", TUNED), ["weights"]),
        (Base("a", ONE), Base("b", WIDE), ["vocabulary size (300, here 320)", "weights"]),
        (Base("a", SIZES), Base("b", ONE), []),
        (Base("org/A", SIZES), Base("/models/a/", ONE), None),
        (Base("org/A", SIZES), Base("/cache/hub/models--org--A/snapshots/0f1e2d", ONE), None),
        (Base("org/A"), Base("models--org--B/snapshots/0f1e2d"), []),
        (Base("gpt2"), Base("hub/models--gpt2/snapshots/0f1e2d/"), None),
        (Base("a", SIZES), Base("a", WIDE), ["vocabulary size (300, here 320)"]),
        (Base("a"), Base("b", ONE), []),
        (Base("a"), Base("a", ONE), None),
        (Base(None), Base("b", ONE), None),
    ],
)
def test_whether_two_bases_are_one(one: Base, other: Base, found: list[str] | None) -> None:
    assert differences(one, other) == found
    mirrored = differences(other, one)
    assert (mirrored is None) == (found is None)


def test_the_warning_names_both_and_what_differs() -> None:
    named = [("mine", adapter("org/one", ONE))]
    assert base_warnings(named, Base("org/one", ONE)) == base_warnings(named, Base("copied", ONE)) == []
    assert base_warnings(named, Base("org/two", WIDE)) == [
        "mine was trained on 'org/one', but the model is 'org/two'; the two differ in vocabulary size (300, here 320) and weights"
    ]
    assert base_warnings(named, Base("org/one", TUNED)) == [
        "mine was trained on 'org/one', but the model is another model of that name; the two differ in weights"
    ]
    assert base_warnings([("mine", adapter("org/one"))], Base("two", ONE)) == [
        "mine was trained on 'org/one', but the model is 'two'"
    ]
    assert base_warnings([("mine", adapter(None, ONE))], Base("two", TUNED)) == [
        "mine was trained on a base that it does not name, but the model is 'two'; the two differ in weights"
    ]
    assert base_warnings([("mine", adapter(None))], Base("two", ONE)) == []


def test_adapters_are_compared_with_the_first_that_has_an_identity() -> None:
    given = [adapter(None), adapter("x/one", ONE), adapter("x/one", TUNED), adapter("copy", ONE), adapter("other")]
    named = list(zip("abcde", given, strict=True))
    assert base_warnings(named) == [
        "c was trained on 'x/one', but b is for another model of that name; the two differ in weights",
        "e was trained on 'other', but b is for 'x/one'",
    ]
    assert check_compatible(given[1:3]) == [
        "adapter 2 was trained on 'x/one', but adapter 1 is for another model of that name; the two differ in weights",
        "no module is adapted by all of the adapters: most of the merge is each adapter's own",
    ]


def test_an_adapter_of_another_program_that_names_a_folder(tmp_path: Path) -> None:
    """The folder is looked at; one of the same sizes and other weights is another model, a copy is the same."""
    folder = save_tiny_model(tmp_path / "one")
    other = save_tiny_model(tmp_path / "two", seed=1)
    mine = [("mine", adapter(str(folder)))]
    here = tiny_backbone().base.identity
    assert base_warnings(mine, Base("copy", here)) == []
    (warning,) = base_warnings([("mine", adapter(str(other)))], Base("copy", here))
    assert warning == f"mine was trained on '{other}', but the model is 'copy'; the two differ in weights"


def test_what_pomona_trains_carries_its_base_from_hand_to_hand(tmp_path: Path) -> None:
    import torch

    backbone = tiny_backbone()
    identity = backbone.base.identity
    fresh = new_adapter(backbone, ["q_proj"], 2, 4.0, torch.Generator().manual_seed(0))
    with attached(backbone, [fresh]) as attachment:
        trained = attachment.export()
    assert base_of(fresh) == base_of(trained) == Base("tiny-llama", identity)
    write_adapter(trained, tmp_path / "trained")
    assert json.loads((tmp_path / "trained" / "pomona.json").read_text()) == {"base": identity and identity.as_json()}
    read = read_adapter(tmp_path / "trained")
    assert base_of(read) == Base("tiny-llama", identity)
    export_peft(compress(read, 1)[0], tmp_path / "exported")
    assert base_of(read_adapter(tmp_path / "exported")) == Base("tiny-llama", identity)
    write_adapter(merge([read, trained], "svd"), tmp_path / "merged")
    assert base_of(read_adapter(tmp_path / "merged")) == Base("tiny-llama", identity)
    assert json.loads((tmp_path / "merged" / "pomona.json").read_text())["method"] == "svd"


def test_a_merge_of_several_bases_has_none(tmp_path: Path) -> None:
    assert carried([adapter("a", ONE), adapter("b", ONE)])[BASE] == ONE.as_json()
    assert BASE not in carried([adapter("a", ONE), adapter("a", TUNED)])
    assert BASE not in carried([adapter("a", ONE), adapter("a")])
    plain = tiny_adapter(tiny_backbone())
    write_adapter(plain, tmp_path / "plain")
    assert not (tmp_path / "plain" / "pomona.json").exists()
    assert base_of(read_adapter(tmp_path / "plain")) == Base("tiny-llama")


@pytest.mark.parametrize("content", ["{", "[]", '{"base": 3}', '{"base": {"layers": "two"}}', "\x00"])
def test_a_sidecar_of_another_kind_is_ignored(tmp_path: Path, content: str) -> None:
    write_adapter(tiny_adapter(tiny_backbone()), tmp_path / "adapter")
    (tmp_path / "adapter" / "pomona.json").write_text(content)
    assert base_of(read_adapter(tmp_path / "adapter")) == Base("tiny-llama")
