"""Base models that are made to hang, to fill the memory or to give away other files: one line each, and exit 2."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from tests.adapters.builders import write_folder
from tests.end_to_end.setting import call
from tests.tiny import save_tiny_model, tiny_adapter, tiny_backbone

from pomona.adapters import write_adapter
from pomona.backbone import template_limit
from pomona.backbone.template_limit import EndlessTemplateError, limited


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    save_tiny_model(folder / "model")
    write_adapter(tiny_adapter(tiny_backbone(), seed=1), folder / "adapter")
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "it")


def refused(folder: Path, *arguments: str) -> str:
    started = time.monotonic()
    outcome = call(folder, *arguments)
    assert time.monotonic() - started < 10
    assert (outcome.code, outcome.out) == (2, ""), outcome
    (line,) = outcome.err.splitlines()
    return line


def change(folder: Path, **changes: object) -> None:
    file = folder / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("num_hidden_layers", 10**9, "the weights have 21 tensors"),
        ("num_hidden_layers", 900, "the weights have 21 tensors"),
        ("hidden_size", 10**9, "no model has more than 16,777,216"),
        ("hidden_size", 2**20, "the longest side of a weight is"),
        ("vocab_size", 10**12, "no model has more than 16,777,216"),
        ("vocab_size", 2**22, "the longest side of a weight is"),
        ("intermediate_size", 2**23, "the longest side of a weight is"),
        ("num_attention_heads", 10**10, "no model has more than 16,777,216"),
    ],
)
def test_sizes_that_no_model_has(field: str, value: int, reason: str, folder: Path) -> None:
    change(folder, **{field: value})
    beyond_any = value > 2**24 or (field == "num_hidden_layers" and value > 1000)
    reason = "no model has more than 1,000 layers" if field == "num_hidden_layers" and beyond_any else reason
    line = refused(folder, "generate", "x", "--model", "model")
    assert f"config.json: {field}: {reason}" in line
    assert f"(got {value})" in line
    if beyond_any:  # without the weights' headers no more is known
        assert f"{field}: {reason}" in refused(folder, "export", "adapter", "--for", "merged", "--base", "model", "-o", "out")
        assert f"{field}: {reason}" in refused(folder, "check", "adapter", "--base", "model")


def test_sizes_within_a_part_of_the_config(folder: Path) -> None:
    change(folder, text_config={"num_hidden_layers": 10**9})
    assert "config.json: text_config.num_hidden_layers: no model has" in refused(folder, "generate", "x", "--model", "model")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": "many"},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": None},
        {"hidden_size": 0},
        {"hidden_size": [1]},
        {"vocab_size": True},
        {"num_attention_heads": 0},
        {"rope_parameters": "x"},
        {"hidden_act": "\x1b[31m"},
        {"hidden_act": "__import__('os')"},
        {"architectures": 7},
        {"architectures": ["\x1b]0;x\x07"], "model_type": "\x1b]0;x\x07"},
        {"model_type": {"a": 1}},
        {"auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"}, "model_type": "evil"},
        {"eos_token_id": "abc"},
        {"torch_dtype": "evil"},
        {"quantization_config": {"quant_method": "evil"}},
    ],
)
def test_a_config_of_the_wrong_kind(changes: dict[str, object], folder: Path) -> None:
    change(folder, **changes)
    (folder / "model" / "evil.py").write_text("raise SystemExit('ran')")
    outcome = call(folder, "generate", "x", "--model", "model", "--max-new-tokens", "1")
    assert outcome.code in {0, 2}, outcome
    assert "\x1b" not in outcome.out + outcome.err
    if outcome.code == 2:
        (line,) = outcome.err.splitlines()
        assert line.startswith("error: ")


_FOR = "{% for a in range(99999) %}"
TEMPLATES = {
    "loops within loops": _FOR * 3 + "{% endfor %}" * 3,
    "loops that write": _FOR * 2 + "x" + "{% endfor %}" * 2,
    "a macro that calls itself": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "a text that doubles": "{% set ns = namespace(t='x' * 99999) %}" + _FOR + "{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "a forbidden attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "no Jinja": "{% for %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_template_that_is_made_to_hang(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limit, "SECONDS", 0.1 if name.startswith("loops") else 5.0)
    file = folder / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATES[name]}))
    (folder / "model" / "chat_template.jinja").unlink(missing_ok=True)
    line = refused(folder, "generate", "x", "--model", "model", "--chat")
    assert "form: the model's chat template" in line
    if name.startswith("loops"):
        assert "takes more than 0.1 seconds for one conversation" in line
    if name == "a text that doubles":
        assert "takes more than 256 MiB of memory" in line


def test_the_limit_is_of_templates_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limit, "SECONDS", 0.05)
    before = sys.gettrace()
    with limited():
        assert sum(range(100)) == 4950
    assert sys.gettrace() is before
    with pytest.raises(EndlessTemplateError), limited():
        exec(compile("while True:\n    x = 1", "<template>", "exec"), {})
    assert sys.gettrace() is before


@pytest.mark.parametrize(
    "model", ["https://10.255.255.1/a", "https://a.b/c/d", "http:/x", "ftp://a/b", "file:///etc", "s3://x/y", "hf://a/b"]
)
def test_an_address_is_fetched_by_no_verb(model: str, folder: Path) -> None:
    config = folder / "adapter" / "adapter_config.json"
    assert "is an address, from which nothing is fetched" in refused(folder, "generate", "x", "--model", model)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": model}))
    assert "neither a folder here nor in the local hub cache" in refused(folder, "generate", "x", "--adapter", "adapter")
    assert "no such model folder or file" in refused(folder, "export", "adapter", "--for", "merged", "--base", model, "-o", "out")
    (folder / "it.yaml").write_text(f"model: '{model}'\ndata: {{train: x.jsonl}}\nsources: [{{name: a, adapter: adapter}}]\n")
    outcome = call(folder, "adapt", "it.yaml")
    assert outcome.code == 2


@pytest.mark.parametrize("model", ["a b/c", "a/b@main", "a/b?x", "-a/b", "../a", "a/b/c", "hub:a/b", "a/\nb"])
def test_what_is_no_hub_id_reaches_no_hub(model: str, folder: Path) -> None:
    assert "model: " in refused(folder, "generate", "x", "--model", model)


def test_an_address_that_ends_as_the_embedded_model_is_another(folder: Path) -> None:
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "https://a.b/SmolLM2-135M-Instruct"}))
    assert "neither a folder here" in refused(folder, "generate", "x", "--adapter", "adapter")


def test_a_link_out_of_the_model_is_not_copied(folder: Path) -> None:
    (folder / "secret.txt").write_text("token")
    (folder / "model" / "notes.txt").symlink_to(folder / "secret.txt")
    line = refused(folder, "export", "adapter", "--for", "merged", "--base", "model", "-o", "out")
    assert "model/notes.txt: is a link to" in line
    assert "outside the model's folder" in line
    assert not (folder / "out").exists()
    (folder / "model" / "notes.txt").unlink()
    (folder / "model" / "notes.txt").symlink_to("tokenizer.json")  # within the model
    assert call(folder, "export", "adapter", "--for", "merged", "--base", "model", "-o", "out").code == 0
    assert (folder / "out" / "notes.txt").read_bytes() == (folder / "model" / "tokenizer.json").read_bytes()


def test_the_hub_cache_s_own_links_are_followed(folder: Path) -> None:
    snapshot = folder / "models--a--b" / "snapshots" / "0123"
    blobs = folder / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in (folder / "model").iterdir():
        shutil.move(file, blobs / file.name)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / file.name)
    arguments = ("export", "adapter", "--for", "merged", "--base", str(snapshot), "-o", "out")
    assert call(folder, *arguments).code == 0
    (snapshot / "notes.txt").symlink_to("/etc/hostname")
    assert "notes.txt: is a link to" in refused(folder, *arguments, "--force")


def test_a_vllm_base_s_sizes_are_looked_at_too(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 10**9}))
    for target in ("vllm", "merged"):
        assert "base" in refused(tmp_path, "export", "adapter", "--for", target, "--base", "base", "-o", "out")
