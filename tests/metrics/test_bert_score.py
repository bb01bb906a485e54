"""BERTScore against its library called in the plainest way, and against a writing of the paper's equations."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_encoder import LAYERS, POSITIONS, save_tiny_encoder

from pomona.errors import InputError, MissingPackageError
from pomona.metrics import BertScore, corpus_score, encoder

PREDICTIONS = ["the cat sat", "a dog!", "no", "one two three four five"]
REFERENCES = [["the cat sat down", "cat"], ["the dog"], ["yes", "not at all", "no no"], ["five four three two one"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "encoder"))


def tokens(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).encode(text, truncation=True, max_length=POSITIONS)


@torch.no_grad()
def greedy_f(folder: Path, layer: int, prediction: str, reference: str) -> float:
    """Equations 1 to 3 of the paper for one pair; the first and the last token have no weight but can be matched."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    units = []
    for text in (reference, prediction):
        states = model(torch.tensor([tokens(folder, text)]), output_hidden_states=True).hidden_states[layer][0]
        units.append(states / states.norm(dim=1, keepdim=True))
    similarity = units[0] @ units[1].T
    recall = float(similarity.max(dim=1).values[1:-1].mean())
    precision = float(similarity.max(dim=0).values[1:-1].mean())
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [1, LAYERS])
def test_equals_the_library_called_by_itself(folder: Path, layer: int) -> None:
    from bert_score import BERTScorer

    oracle = BERTScorer(model_type=str(folder), num_layers=layer, device="cpu")
    oracle._tokenizer.model_max_length = POSITIONS  # the library fails at a tokenizer that does not say
    *_, expected = oracle.score(PREDICTIONS, REFERENCES)
    found = BertScore(model=str(folder), layer=layer, device="cpu").table(PREDICTIONS, REFERENCES)
    assert found.shape == (4, 1)
    assert found[:, 0] == pytest.approx(np.asarray(expected), abs=1e-6)
    assert 0.1 < found.min() < found.max() < 0.99


@pytest.mark.parametrize("layer", [1, 2])
def test_equals_the_paper_s_equations(folder: Path, layer: int) -> None:
    metric = BertScore(model=str(folder), layer=layer)
    for prediction, references in zip(PREDICTIONS, REFERENCES, strict=True):
        expected = max(greedy_f(folder, layer, prediction, reference) for reference in references)
        assert metric.statistics(prediction, references)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_change_nothing(folder: Path, batch_size: int) -> None:
    whole = BertScore(model=str(folder)).table(PREDICTIONS, REFERENCES)
    assert BertScore(model=str(folder), batch_size=batch_size).table(PREDICTIONS, REFERENCES) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("text", ["", " \n", "\x00\x01", "\u200b", "\u202e\u200f"])
def test_text_without_tokens_scores_0(folder: Path, text: str) -> None:
    metric = BertScore(model=str(folder))
    rows = metric.table([text, "cat", text, "cat"], [["cat"], [text], [text], [text, "cat"]])
    assert rows[:, 0] == pytest.approx([0.0, 0.0, 0.0, 1.0], abs=1e-6)


def test_opposite_embeddings_score_0(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.tensor([[-0.5, 0.4, 4.0], [-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]])
    monkeypatch.setattr("bert_score.utils.bert_cos_score_idf", lambda *arguments, **named: scores)
    assert BertScore(model=str(folder)).table(["a", "b", "c"], [["x"]] * 3)[:, 0].tolist() == [0.0, 0.0, 0.5]


def test_a_half_of_a_pair_is_a_question_mark(folder: Path) -> None:
    metric = BertScore(model=str(folder))
    assert metric.statistics("cat \ud800", ["cat ?"])[0] == pytest.approx(1.0, abs=1e-6)


def test_long_texts_are_cut_at_the_encoder_s_longest_input(folder: Path) -> None:
    metric = BertScore(model=str(folder))
    long = " ".join("cat dog"[n % 7] for n in range(5_000))
    same_beginning = " ".join(long.split()[: POSITIONS - 2])
    assert metric.statistics(long, [same_beginning])[0] == pytest.approx(1.0, abs=1e-6)
    assert metric.statistics(long, [" ".join(long.split()[: POSITIONS - 3])])[0] < 0.9999


def test_roberta_s_positions_and_first_words(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaConfig, RobertaModel

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(["the cat sat on the cat"], trainer)
    bpe.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}), encoding="utf-8")
    config = RobertaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    loaded = encoder.load_encoder(str(tmp_path), None, "cpu")
    # Positions 0 and 1 are not for tokens. A text's first word is cut as the same word after a space.
    assert loaded.tokenizer.model_max_length == 32
    first, second = loaded.tokenizer.encode("cat cat")[1:-1]
    assert first == second
    assert BertScore(model=str(tmp_path)).statistics("cat " * 500, ["cat " * 400])[0] == pytest.approx(1.0, abs=1e-6)


def test_the_layer_is_the_library_s_for_a_model_that_it_knows_else_the_last(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encoder.load_encoder(str(folder), None, "cpu").layer == LAYERS
    deep = save_tiny_encoder(tmp_path, layers=9)
    monkeypatch.setattr(encoder, "_folder", lambda model: deep)
    assert encoder.load_encoder("bert-base-chinese", None, "cpu").layer == 8


def test_the_signature_names_versions_model_and_layer(folder: Path) -> None:
    import bert_score
    import transformers

    expected = (
        f"bert-score|v:{bert_score.__version__}|model:{folder}|layer:{LAYERS}|idf:no|rescale:no|refs:best"
        f"|transformers:{transformers.__version__}"
    )
    assert BertScore(model=str(folder)).signature == expected
    assert "|layer:1|" in BertScore(model="not/loaded", layer=1).signature


def test_nothing_is_loaded_before_the_first_score() -> None:
    metric = BertScore("zh", model="some/encoder")
    assert corpus_score(np.array([[0.25], [0.75]]), metric) == 50.0
    with pytest.raises(InputError, match=r"^model: the encoder cannot be loaded: .*some/encoder"):
        metric.statistics("a", ["b"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"^model: bert_score needs an encoder \(got None\)\. Give a folder or a hub id"),
        ({"model": ""}, r"^model: bert_score needs an encoder"),
        ({"model": "m", "layer": -1}, r"^layer: must be at least 0 \(got -1\)"),
        ({"model": "m", "batch_size": 0}, r"^batch_size: must be at least 1 \(got 0\)"),
        ({"model": "m", "language": "Klingon"}, r"^language: not a language tag"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BertScore(**fields)  # pyright: ignore[reportArgumentType]


def test_the_package_is_asked_for_when_the_metric_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackageError, match=r'needs bert-score, which is not installed\. .*`pip install "pomona\[bert-score\]"`'
    ):
        BertScore(model="m")


def refused(folder: Path, **fields: object) -> str:
    with pytest.raises(InputError) as caught:
        BertScore(model=str(folder), **fields).statistics("a", ["b"])  # pyright: ignore[reportArgumentType]
    return str(caught.value)


def test_folders_that_cannot_be_trusted_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}), encoding="utf-8")
    assert "needs its own code, which Pomona does not run" in refused(copy)
    (copy / "config.json").write_text("{", encoding="utf-8")
    assert "its config.json cannot be read" in refused(copy)
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "it has no model.safetensors, and pickles are not read" in refused(copy)
    (copy / "pytorch_model.bin").rename(copy / "model.safetensors")
    (copy / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "its folder has an adapter, which the library would load too" in refused(copy)


def test_weights_that_are_not_whole_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "the encoder cannot be loaded: " in refused(copy)


def test_a_path_that_the_library_would_misread_is_refused(copy: Path) -> None:
    moved = copy.rename(copy.with_name("kit5-encoder-t5x"))
    assert "bert-score treats any path that contains t5 as a T5 model" in refused(moved)


def test_what_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in refused(tmp_path / "absent")
    assert "layer: the encoder has no such layer (got 4). It has 3." in refused(folder, layer=LAYERS + 1)
    assert "the encoder cannot be loaded: " in refused(folder, device="toaster")
