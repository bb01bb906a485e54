"""The model on which adapters are used: their own base where none is named, and a word where it is another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.end_to_end.setting import call, make_setting
from tests.tiny import save_tiny_model, tiny_adapter, tiny_backbone

from pomona.adapters import Adapter, write_adapter
from pomona.adapters.base_identity import BaseIdentity, identity_of_folder
from pomona.adapters.same_base import BASE
from pomona.errors import InputError
from pomona.runs.adapters_base import model_for


def named(base: str | None, identity: BaseIdentity | None = None) -> Adapter:
    return Adapter({}, base, {} if identity is None else {BASE: identity.as_json()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a copy and another of the same shapes; adapters that name them."""
    folder = make_setting(tmp_path_factory.mktemp("bases"))
    shutil.copytree(folder / "model", folder / "copied")
    save_tiny_model(folder / "other", seed=1)
    for base in ("model", "other", "org/nowhere"):
        trained = tiny_adapter(tiny_backbone(), seed=4, size=0.5)
        write_adapter(Adapter(trained.factors, base), folder / f"of-{base.replace('/', '-')}")
    return folder


def test_the_user_s_word_goes_first_and_no_adapter_is_the_embedded_model() -> None:
    assert model_for([named("a"), named("b")], "mine") == "mine"
    assert model_for([], None) == "embedded"


def test_bases_that_are_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(folder / "model")
    assert model_for([named(path)], None) == path
    assert model_for([named(None), named(path)], None) == path
    for base in ("embedded", "SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        assert model_for([named(base)], None) == "embedded"
    assert model_for([named("org/Model"), named(path)], None) == path
    same = identity_of_folder(folder / "model")
    assert model_for([named("gone", same), named(str(folder / "copied"), same)], None) == str(folder / "copied")
    monkeypatch.setattr("pomona.runs.adapters_base.cached_folder", lambda name: folder if name == "org/cached" else None)
    assert model_for([named("org/cached")], None) == "org/cached"


@pytest.mark.parametrize(
    ("adapters", "told"),
    [
        ([named(None)], "model: adapter 1 does not name its base model. Give the model that it was trained on as `model`."),
        (
            [named("org/one"), named("org/two")],
            "model: adapter 1 was trained on 'org/one', but adapter 2 on 'org/two'. Say with `model` on which model to use them.",
        ),
        (
            [named("org/one")],
            "model: adapter 1 was trained on 'org/one', which is neither a folder here nor in the local hub cache. Give the "
            "folder of that model as `model`, or `model` org/one to download it.",
        ),
        (
            [named("/gone")],
            "model: adapter 1 was trained on '/gone', which is neither a folder here nor in the local hub cache. Give the folder "
            "of that model as `model`.",
        ),
    ],
)
def test_bases_that_are_not_or_not_one(adapters: list[Adapter], told: str) -> None:
    with pytest.raises(InputError) as caught:
        model_for(adapters, None)
    assert str(caught.value) == told


def test_generate_takes_the_adapter_s_base_and_says_where_it_is_another(folder: Path) -> None:
    arguments = ("generate", "Raise", "--max-new-tokens", "6", "--json")
    own = call(folder, *arguments, "-a", "of-model")
    assert (own.code, own.err) == (0, "")
    copied = call(folder, *arguments, "-a", "of-model", "--model", "copied")
    assert (copied.out, copied.err) == (own.out, "")
    other = call(folder, *arguments, "-a", "of-model", "--model", "other")
    warning = "of-model was trained on 'model', but the model is 'other'; the two differ in weights"
    assert other.err == f"warning: {warning}\n"
    assert json.loads(other.out)["warnings"] == [warning]
    assert json.loads(other.out)["text"] != json.loads(own.out)["text"]
    gone = call(folder, *arguments, "-a", "of-org-nowhere")
    assert (gone.code, gone.out) == (2, "")
    assert "was trained on 'org/nowhere', which is neither" in gone.err


def test_evaluate_too(folder: Path) -> None:
    arguments = ("evaluate", "--data", "source.jsonl", "--set", "max_new_tokens=2", "--metric", "chrf", "--examples", "3", "--json")
    own = json.loads(call(folder, *arguments, "-a", "of-model").out)
    assert (own["model"], [one for one in own["warnings"] if "trained on" in one]) == ("model", [])
    other = call(folder, *arguments, "-a", "of-model", "--model", "other")
    warning = "of-model was trained on 'model', but the model is 'other'; the two differ in weights"
    assert warning in json.loads(other.out)["warnings"]
    assert warning in other.err
    two = call(folder, *arguments, "-a", "of-model", "-a", "of-other")
    assert (two.code, two.out) == (2, "")
    assert "of-model was trained on 'model', but of-other on 'other'" in two.err
