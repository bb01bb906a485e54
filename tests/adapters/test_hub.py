"""Adapters by hub id, from a hub on this machine and from the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
from tests.adapters.builders import random_adapter
from tests.support.fake_hub import COMMIT, OLDER, FakeHub, fake_hub

from pomona.adapters import check_adapters, read_adapter, write_adapter
from pomona.adapters.hub import fetch
from pomona.errors import InputError
from pomona.merging import merge

IDENTITY = {"model_type": "llama", "hidden_size": 32, "layers": 2, "vocabulary": 300, "weights": "a"}
PICKLE = {"adapter_config.json": b"{}", "adapter_model.bin": b"\x80\x04never"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """Seed -> the files of an adapter."""
    found = {}
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("adapter") / "one"
        write_adapter(random_adapter(seed), folder)
        found[seed] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return found


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


@pytest.fixture
def hub(files: dict[int, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub that can be reached, and an empty cache."""
    one, two = files[1], files[2]
    repositories = {
        "me/one": {COMMIT: one | {"adapter_model.bin": b"\x80\x04never", "README.md": b"hi"}, OLDER: two},
        "me/single": {COMMIT: {"README.md": b"hi"} | below("only/here", two)},
        "me/several": {COMMIT: below("en", one) | below("fr", two)},
        "me/pickle": {COMMIT: PICKLE},
        "me/based": {COMMIT: one | {"pomona.json": json.dumps({"base": IDENTITY}).encode()}},
        "me/broken": {COMMIT: one | {"adapter_config.json": b"{"}},
        "me/empty": {COMMIT: {"README.md": b"hi"}},
    }
    with fake_hub(repositories) as served:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield served


def test_an_adapter_by_its_name(hub: FakeHub) -> None:
    adapter = read_adapter("hub:me/one")
    assert adapter.fingerprint() == random_adapter(1).fingerprint()
    assert (adapter.provenance["path"], adapter.provenance["commit"]) == ("hub:me/one", COMMIT)
    assert sorted(hub.fetched) == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_revision_and_a_path_object_as_the_command_line_gives_it(hub: FakeHub) -> None:
    adapter = read_adapter(Path("hub:me/one@older"))
    assert adapter.fingerprint() == random_adapter(2).fingerprint()
    assert (adapter.provenance["path"], adapter.provenance["commit"]) == ("hub:me/one@older", OLDER)
    assert read_adapter(f"hub:me/one@{OLDER}").fingerprint() == adapter.fingerprint()


@pytest.mark.parametrize("name", ["hub:me/several/fr", "hub:me/several/fr@main", "hub:me/single", "hub:me/single/only/here"])
def test_a_subfolder(hub: FakeHub, name: str) -> None:
    adapter = read_adapter(name)
    assert adapter.fingerprint() == random_adapter(2).fingerprint()
    assert adapter.provenance["path"] == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:me/none", "hub:me/none: no such repository on the hub. Check owner and name; for a private one set HF_TOKEN."),
        ("hub:me/one@no", "hub:me/one@no: the repository has no revision no. Give a branch, a tag or a commit that it has."),
        ("hub:me/several", "hub:me/several: holds 2 adapters: en, fr. Give one of them: hub:me/several/fr."),
        ("hub:me/several@main", "hub:me/several@main: holds 2 adapters: en, fr. Give one of them: hub:me/several/fr@main."),
        (
            "hub:me/several/de",
            "hub:me/several/de: has no adapter_config.json; the repository has adapters in other folders: en, fr.",
        ),
        ("hub:me/empty", "hub:me/empty: has no adapter_config.json. Give the repository of a PEFT adapter."),
        (
            "hub:me/pickle",
            "hub:me/pickle: has its weights in adapter_model.bin alone, a pickle, ",
        ),
        ("hub:me/broken", "hub:me/broken/adapter_config.json: "),
        ("hub:one", "not an adapter of the hub (got 'hub:one'). Write hub:owner/name, "),
        ("hub:me/one/../../etc", "not an adapter of the hub (got "),
        ("hub:me/--one", "hub:me/--one: is no name of a repository."),
    ],
)
def test_what_is_not_there(hub: FakeHub, name: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_adapter(name)
    assert str(refused.value).startswith(message)
    assert "adapter_model.bin" not in hub.fetched


def test_without_a_network_the_cache_serves_what_was_fetched(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("hub:me/one")
    fetch("hub:me/several/fr")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert read_adapter("hub:me/one").provenance["commit"] == COMMIT
    assert read_adapter(f"hub:me/one@{COMMIT}").fingerprint() == random_adapter(1).fingerprint()
    assert read_adapter("hub:me/several").fingerprint() == random_adapter(2).fingerprint()  # the only one that was fetched
    for name in ("hub:me/single", "hub:me/one@older", "hub:me/several/en@older"):
        with pytest.raises(InputError, match="is not in the local hub cache, and HF_HUB_OFFLINE is set") as refused:
            read_adapter(name)
        assert str(refused.value).startswith(f"{name}: ")
    with pytest.raises(InputError, match=r"hub:me/several/en: has no adapter_config.json; .* in other folders: fr"):
        read_adapter("hub:me/several/en")
    assert len(hub.asked) == asked


def test_a_hub_that_cannot_be_reached(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("hub:me/one")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the hub's own attempts
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert read_adapter("hub:me/one").provenance["commit"] == COMMIT
    with pytest.raises(InputError, match="hub:me/single: cannot be fetched, and is not in the local hub cache: "):
        read_adapter("hub:me/single")


def test_a_merge_and_a_check_call_it_as_the_user_does(hub: FakeHub, tmp_path: Path) -> None:
    merged = merge([read_adapter("hub:me/one"), read_adapter("hub:me/one@older")])
    assert merged.provenance["sources"] == ["hub:me/one", "hub:me/one@older"]
    assert merged.provenance["commits"] == {"hub:me/one": COMMIT, "hub:me/one@older": OLDER}
    found = check_adapters([Path("hub:me/one"), Path("hub:me/none")])
    assert [(one.level, one.subject) for one in found][:2] == [("ok", "hub:me/one"), ("error", "hub:me/none")]
    assert not [one for one in found if str(tmp_path) in one.message + one.subject]


def test_what_identifies_the_base_comes_along(hub: FakeHub) -> None:
    assert read_adapter("hub:me/based").provenance["base"] == IDENTITY
    assert "base" not in read_adapter("hub:me/one").provenance
