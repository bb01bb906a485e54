from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest

from pomona.errors import InputError, MissingPackageError
from pomona.metrics import Bleu, RougeL
from pomona.metrics.segment import check_segmenter, segment, segmenter_name


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("我来到北京清华大学。", "zh", "我|来到|北京|清华大学|。"),
        ("2012年 ok", "zh", "2012|年|ok"),
        ("東京タワーは1958年に完成した", "ja", "東京|タワー|は|1958|年|に|完成|し|た"),
        ("これ\x00は\ud800本\u3000です", "ja", "これ|は|本|です"),
        ("", "ja", ""),
    ],
)
def test_words(text: str, language: str, expected: str) -> None:
    assert list(segment(text, language)) == expected.split("|") * bool(expected)


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_nothing_is_lost_of_texts_that_are_too_long_to_cut_at_once(language: str) -> None:
    text = "東京都" * 70_000
    assert "".join(segment(text, language)) == text


def test_jieba_leaves_no_cache_in_the_temporary_folder(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pomona.metrics import segment as room

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cut = room._jieba.__wrapped__()
    assert list(cut("清华大学")) == ["清华大学"]
    assert not list(tmp_path.iterdir())  # pyright: ignore[reportAttributeAccessIssue]


def test_names_have_versions() -> None:
    version = importlib.metadata.version
    assert segmenter_name("zh") == f"jieba-{version('jieba')}"
    assert segmenter_name("ja") == f"fugashi-{version('fugashi')}-unidic-lite-{version('unidic-lite')}"


def test_what_cannot_be_cut_is_refused_when_the_metric_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError,
        match=r"^language: of the languages without spaces, only ja and zh can .* \(got 'th'\)\. Use the tokenizer auto",
    ):
        RougeL("th", tokenizer="words")
    with pytest.raises(InputError, match="can be segmented into words"):
        Bleu("en", tokenizer="words")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for language, package in (("zh", "jieba"), ("ja", "fugashi")):
        message = rf'^tokenizer: words of {language} need {package}, which is not installed\. .*`pip install "pomona\[languages\]"`'
        for make in (RougeL, Bleu, lambda primary, tokenizer: check_segmenter(primary)):
            with pytest.raises(MissingPackageError, match=message):
                make(language, tokenizer="words")
    with pytest.raises(MissingPackageError, match=r'`pip install "sacrebleu\[ko\]"`'):
        Bleu("ko", tokenizer="ko-mecab")
