"""A tokenizer with more tokens than the model has rows: padding is any row, and a token that occurs is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.end_to_end.setting import Outcome, call, lines, make_setting, recipe, write_recipe, write_rows
from tests.tiny import VOCABULARY, save_tiny_model, tiny_backbone, tiny_chat_tokenizer, tiny_tokenizer
from transformers import AutoTokenizer

from pomona.backbone.batches import encode
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import generate
from pomona.backbone.load import load_backbone
from pomona.backbone.loss import example_losses
from pomona.backbone.speed import Packing
from pomona.backbone.token_ids import padding_id, refuse_unknown
from pomona.data import Example
from pomona.errors import InputError

OUTSIDE = {"additional_special_tokens": ["<|extra|>"]}
PROMPTS = ("Return the sum of all values", "Raise", "The mean of the rows")


def grown(folder: Path, **tokens: Any) -> Any:
    """The tokenizer of a model folder with tokens that the model has no rows for; saved there."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("ids"))
    write_recipe(folder / "short.yaml", recipe(tuning={"epochs": 1, "batch_size": 4, "learning_rate": 0.01}))
    return folder


@pytest.fixture
def copy(setting: Path, tmp_path: Path) -> Path:
    return shutil.copytree(setting, tmp_path / "copy")


def test_padding_outside_the_embedding_is_any_row_and_changes_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_backbone(str(copy / "model"), device="cpu")
    assert grown(copy / "model", pad_token="<|pad|>").pad_token_id == VOCABULARY
    found = load_backbone(str(copy / "model"), device="cpu")
    assert (plain.pad_id, found.pad_id, found.embedding_rows) == (0, 0, VOCABULARY)
    examples = [Example(text, text, " sum", (" sum",), "") for text in PROMPTS]
    assert Packing in plain.speed
    assert Packing in found.speed
    for packs in (True, False):
        for one in (plain, found):
            monkeypatch.setitem(vars(one), "speed", one.speed if packs else one.speed.without(Packing))
        encoded = [encode(examples, one.tokenizer, 64, one.embedding_rows)[0] for one in (plain, found)]
        assert encoded[0] == encoded[1]
        assert example_losses(found, encoded[1], 3) == example_losses(plain, encoded[0], 3)
    for decoding in (Decoding(), Decoding(num_beams=3)):
        settings: dict[str, Any] = {"max_new_tokens": 6, "batch_size": 3, "decoding": decoding}
        assert generate(found, PROMPTS, **settings) == generate(plain, PROMPTS, **settings)


def test_padding_of_the_config_outside_the_embedding(tmp_path: Path) -> None:
    """torch by itself makes no such embedding: an assertion fails."""
    folder = save_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": VOCABULARY}))
    found = load_backbone(str(folder), device="cpu")
    ids = torch.tensor([[1, 7, 9]])
    torch.testing.assert_close(found.model(input_ids=ids).logits, tiny_backbone().model(input_ids=ids).logits)


def test_the_id_to_pad_with() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.pad_token_id == 0
    assert [padding_id(tokenizer, rows) for rows in (300, 1)] == [0, 0]
    other = tiny_chat_tokenizer("{{ bos_token }}")
    other.pad_token = "</s>"
    assert [padding_id(other, rows) for rows in (300, 3, 2)] == [2, 2, 0]


def test_a_token_that_occurs_is_named_with_its_id_and_the_rows() -> None:
    refuse_unknown([0, 299], 300, tiny_tokenizer(), "x")
    with pytest.raises(InputError) as caught:
        refuse_unknown([0, 298, 299], 298, tiny_tokenizer(), "example 'row1'")
    token = tiny_tokenizer().convert_ids_to_tokens(298)
    assert str(caught.value) == (
        f"model: example 'row1' has the token {token!r} (id 298), but the model's embedding has 298 rows, for ids below 298. Use "
        "the tokenizer that the model was published with, or resize the model's embedding and train the new rows."
    )


def prompt(folder: Path) -> None:
    content = lines(folder / "data.jsonl")
    write_rows(folder / "data.jsonl", [row | {"document": f"{row['document']} <|extra|>"} for row in content])
    grown(folder / "model", **OUTSIDE)


def completion(folder: Path) -> None:
    content = lines(folder / "data.jsonl")
    content[7]["summary"] += " <|extra|>"
    write_rows(folder / "data.jsonl", content)
    grown(folder / "model", **OUTSIDE)


def end(folder: Path) -> None:
    """It closes every completion."""
    grown(folder / "model", eos_token="<|extra|>")


def chat(folder: Path) -> None:
    """The template writes it."""
    tokenizer = grown(folder / "model", **OUTSIDE)
    tokenizer.chat_template = "{% for message in messages %}<|extra|>{{ message.content }}</s>{% endfor %}"
    tokenizer.save_pretrained(folder / "model")
    chosen = recipe(task={"name": "summarization", "max_new_tokens": 6, "form": "chat"})
    write_recipe(folder / "short.yaml", chosen)


@pytest.mark.parametrize("happens", [prompt, completion, end, chat])
def test_a_token_without_a_row_is_refused_before_anything_is_trained(
    copy: Path, happens: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pomona.runs.system_trainer.fit", lambda *_, **__: pytest.fail("trained"))
    happens(copy)
    told(call(copy, "adapt", "short.yaml"))
    assert not (copy / "runs").exists()


def test_other_verbs_refuse_it_too(copy: Path) -> None:
    grown(copy / "model", **OUTSIDE)
    told(call(copy, "generate", "x <|extra|>", "--model", "model"))
    content = lines(copy / "source.jsonl")
    content[3]["document"] += "<|extra|>"
    write_rows(copy / "source.jsonl", content)
    told(call(copy, "train-adapter", "source.yaml"))
    told(call(copy, "evaluate", "--data", "source.jsonl", "--model", "model", "--set", "max_new_tokens=4"))
    outcome = call(copy, "generate", "x", "--model", "model", "--max-new-tokens", "2")
    assert (outcome.code, outcome.errors) == (0, [])


def told(outcome: Outcome) -> None:
    assert outcome.code == 2, outcome.err
    (line,) = outcome.errors
    assert "has the token '<|extra|>' (id 300), but the model's embedding has 300 rows" in line
