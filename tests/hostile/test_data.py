from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pomona.data import examples, read_jsonl
from pomona.data.tasks import Summarization
from pomona.errors import InputError
from pomona.metrics import metrics

GOOD = b'{"id": "a", "document": "d", "summary": "s"}\n'


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (GOOD + b'{"id": "b", "document": \n', 2, "not JSON: Expecting value at column "),
        (GOOD + b"\n\nnonsense\n", 4, "not JSON: Expecting value at column 1. Put one complete JSON object on each line."),
        (GOOD + b'{"a": 1} {"b": 2}\n', 2, "not JSON: Extra data at column 10"),
        (GOOD + b'["a"]\n', 2, "a JSON object is expected, this is a list"),
        (b"null\n", 1, "a JSON object is expected, this is a NoneType"),
        (b'{"document": "caf\xe9"}\n', 1, "not UTF-8: byte 0xe9 at 18. Save the file as UTF-8."),
        ('{"document": "x"}'.encode("utf-16"), 1, "not UTF-8: byte 0xff at 1"),
        (b'{"score": NaN}', 1, "not usable JSON: NaN is not JSON"),
        (b'{"score": -Infinity}', 1, "not usable JSON: -Infinity is not JSON"),
        (b'{"document": "\\ud800"}', 1, "holds half of a surrogate pair"),
        (b'{"document": "tab\tin a text"}', 1, "not JSON: Invalid control character at at column 18"),
        (b"[" * 200_000, 1, "not usable JSON: maximum recursion depth"),
        (b'{"n": ' + b"9" * 5000 + b"}", 1, "not usable JSON: Exceeds the limit"),
        (GOOD + b'{"id": "b"}\n' + GOOD, 3, "id: this id is already on line 1 (got 'a'). Give each row its own id."),
        (b'{"id": 1}\n{"id": "1"}', 2, "id: this id is already on line 1"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_jsonl(path)
    assert str(caught.value).startswith(f"{path}:{line}: {message}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xef\xbb\xbf", b" " * 1_000_000])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"has no rows\. Put one JSON object on each line"):
        read_jsonl(path)


def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file\. Check the path"):
        read_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        read_jsonl(tmp_path)


HOSTILE = {
    "a megabyte": "word " * 200_000,
    "a million spaces": " " * 1_000_000 + "x",
    "control characters": "a\x00b\x1b[31m\x7f\x85\u2028c",
    "right to left": "\u202eabc\u200f \u0627\u0644 \u202c",
    "braces": "{document} {0} {{ %s \\",
    "unpaired marks": "\u0301\u0e31\u200d\ufe0f",
    "emoji": "👩‍👩‍👧‍👦 🇰🇪",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_odd_text_goes_through_the_loader_unharmed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"document": text, "summary": text[-50:]}, ensure_ascii=False), encoding="utf-8")
    (example,) = examples(read_jsonl(path), Summarization(), path)
    assert example.document == text.strip()
    assert len(example.prompt) <= 4000 + len("\n\nSummary:")
    assert example.prompt.endswith("\n\nSummary:")


@pytest.mark.parametrize("name", list(metrics))
@pytest.mark.parametrize("language", ["en", "ar", "zh"])
def test_odd_predictions_are_scored_by_every_metric(name: str, language: str) -> None:
    metric = metrics.create(name, {"language": language})
    for text in [*HOSTILE.values(), "\ud800", "", "\n"]:
        cut = text[:20_000]
        statistics = metric.statistics(cut, ["a reference of five words", "مرجع", "\ud800"])
        (score,) = metric.aggregate(statistics[None], np.ones(1))
        assert 0.0 <= score <= 100.0, (text[:20], score)
    assert metric.aggregate(metric.statistics("a reference", [""])[None], np.ones(1)) == 0.0
