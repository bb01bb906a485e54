"""`pomona push` and `--push-to-hub`, against a hub on this machine; and the cards that go with them."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard
from tests.end_to_end.setting import QUICK, call, inside, lines, make_setting, recipe, write_recipe
from tests.support.upload_hub import TOKEN, UploadHub, upload_hub

from pomona.adapters import read_adapter
from pomona.adapters.push import check_push, push
from pomona.errors import InputError, PomonaError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's of transformers
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("push"))
    write_recipe(folder / "quick.yaml", recipe(name="quick", **QUICK))
    (folder / "model" / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    for name in ("alpha", "beta"):
        (folder / "adapters" / name / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    huggingface_hub.utils.disable_progress_bars()
    huggingface_hub.close_session()
    with upload_hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found
    huggingface_hub.close_session()


def front(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n", 2)[1])


def code(card: str) -> str:
    found = re.search(r"^(`{3,})python\n(.*?)\n\1$", card, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[2]


def printed(code: str, folder: Path, adapter: Path) -> str:
    """What the card's code prints, with its placeholder in the place of the folder."""
    out = io.StringIO()
    with inside(folder), contextlib.redirect_stdout(out):
        exec(compile(code.replace("path/to/this/folder", str(adapter)), "card", "exec"), {})
    return out.getvalue().removesuffix("\n")


def test_adapt_pushes_adapter_and_card_and_the_card_s_code_gives_the_first_answer(folder: Path, hub: UploadHub) -> None:
    done = call(folder, "adapt", "quick.yaml", "--push-to-hub", "someone/titles")
    assert done.code == 0, done.err
    assert (hub.made[0]["organization"], hub.made[0]["name"]) == ("someone", "titles")
    assert not {"private", "visibility"} & set(hub.made[0])  # as the owner's settings say
    uploaded = hub.files["someone/titles"]
    adapter = folder / "runs/quick/adapter"
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        assert uploaded[name] == (adapter / name).read_bytes()
    card = uploaded["README.md"].decode()
    first = lines(folder / "runs/quick/predictions.jsonl")[0]
    assert printed(code(card), folder, adapter) == first["predictions"]["pomona"]
    assert repr(first["prompt"]) in code(card)
    assert hub.tokens == {TOKEN}
    everything = [path.read_bytes() for path in (folder / "runs/quick").rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in [*everything, *uploaded.values()])
    assert TOKEN not in done.out + done.err


def test_the_card_of_a_run_has_what_the_hub_shows(folder: Path) -> None:
    card = (folder / "runs/quick/adapter/README.md").read_text()
    found = front(card)
    assert (found["license"], found["language"]) == ("mit", ["en"])
    assert "base_model" not in found  # a folder here
    data: Any = ModelCard(card).data
    assert data.eval_results is not None
    rouge = next(one for one in data.eval_results if one.metric_type == "rouge")
    assert rouge.metric_name is not None
    assert "95 % interval" in rouge.metric_name
    assert "    {document}" in card
    fingerprints = [read_adapter(folder / "adapters" / name).fingerprint()[:12] for name in ("alpha", "beta")]
    assert all(one in card for one in fingerprints)
    assert "- Licence of base model: mit" in card


def test_train_merge_and_every_export_have_a_card(folder: Path, hub: UploadHub) -> None:
    trained = call(folder, "train-adapter", "source.yaml", "-o", "gamma", "--push-to-hub", "someone/gamma")
    assert trained.code == 0, trained.err
    card = hub.files["someone/gamma"]["README.md"].decode()
    assert "Trained on source.jsonl" in card
    assert front(card)["language"] == ["en"]
    merged = call(folder, "merge", "adapters/alpha", "adapters/beta", "-o", "merged", "--push-to-hub", "someone/merged")
    assert merged.code == 0, merged.err
    card = hub.files["someone/merged"]["README.md"].decode()
    assert "model-merging" in front(card)["tags"]
    assert f"| adapters/alpha | `{read_adapter(folder / 'adapters/alpha').fingerprint()[:12]}` | mit |" in card
    assert read_adapter(folder / "merged").fingerprint()[:12] in card
    for target, output, name in (
        ("peft", "as-peft", "README.md"),
        ("vllm", "as-vllm", "README.md"),
        ("merged", "as-model", "README.md"),
        ("llama.cpp", "as.gguf", "as.gguf.md"),
    ):
        done = call(
            folder, "export", "gamma", "--for", target, "-o", output, "--base", "model", "--push-to-hub", f"someone/{output}"
        )
        assert done.code == 0, done.err
        place = folder / name if target == "llama.cpp" else folder / output / name
        card = place.read_text()
        assert hub.files[f"someone/{output}"]["README.md"].decode() == card
        assert f"Exported for {target} by" in card
        assert read_adapter(folder / "gamma").fingerprint()[:12] in card
        again = call(folder, "export", "gamma", "--for", target, "-o", output, "--base", "model", "--force")
        assert again.code == 0, again.err
    assert front((folder / "as-model/README.md").read_text())["library_name"] == "transformers"
    model = code((folder / "as-model/README.md").read_text()).replace("Write the prompt here.", "amber birch")
    adapter = code((folder / "as-peft/README.md").read_text()).replace("Write the prompt here.", "amber birch")
    adapter = re.sub(r"base, adapter = .*?,", "base, adapter = 'model',", adapter)
    assert printed(model, folder, folder / "as-model") == printed(adapter, folder, folder / "as-peft")


def test_push_a_folder_privately(folder: Path, hub: UploadHub) -> None:
    done = call(folder, "push", "adapters/alpha", "someone/alpha", "--private")
    assert (done.code, done.out) == (0, f"pushed   {hub.address}/someone/alpha\n")
    assert hub.made[-1].get("private") is True or hub.made[-1]["visibility"] == "private"
    assert set(hub.files["someone/alpha"]) == {path.name for path in (folder / "adapters/alpha").iterdir()}


def test_the_token_is_in_no_error(folder: Path, hub: UploadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses = True
    with pytest.raises(PomonaError, match="could not be pushed to someone/alpha") as caught:
        push(folder / "adapters/alpha", "someone/alpha")
    assert TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__


def test_what_cannot_be_pushed_is_said_before_any_work(folder: Path, hub: UploadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call(folder, "adapt", "quick.yaml", "-o", "none", "--push-to-hub", "titles")
    assert done.code == 2
    assert done.errors == ["error: --push-to-hub: names no repository (got 'titles'). Write OWNER/NAME."]
    assert not (folder / "none").exists()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(InputError, match="there is no token to write with"):
        check_push("a/b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="the hub is switched off"):
        check_push("a/b")
