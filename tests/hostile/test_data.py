from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.end_to_end.setting import call, process

from pomona.data import examples, read_jsonl, read_rows
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
        (b'{"score": -1e999}', 1, "not usable JSON: -1e999 is too large for a number"),
        (GOOD + b'{"document": "a", "x": {"y": 1, "y": 2}}', 2, "not usable JSON: the key 'y' is twice in one object"),
        (GOOD + b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}", 2, "not usable JSON: more than 100 levels of lists and objects"),
        (b'{"document": "\xed\xa0\x80"}', 1, "not UTF-8: byte 0xed at 15"),
        (b'{"document": "\\ud800"}', 1, "contains half of a surrogate pair"),
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
    with pytest.raises(InputError, match=r"data\.json: has no rows"):
        read_rows(path.rename(tmp_path / "data.json"))


def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file\. Check the path"):
        read_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        read_jsonl(tmp_path)
    for name in ("a\0b.jsonl", "a\0b.csv", "a\0b.parquet", "a\0b"):
        with pytest.raises(InputError, match="cannot be read: embedded null byte"):
            read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b'[{"a": 1},\n{"a": }]', ":2", "not JSON: Expecting value at column 7. Correct the file."),
        (b'[{"a": 1},\n{"a": 2}', ":2", "not JSON: Expecting ',' delimiter at column 9"),
        (b'[{"a": 1},\n{"a": "caf\xe9"}]', ":2", "not UTF-8: byte 0xe9 at 11"),
        (b'[{"a": 1}, ["a"]]', ", row 2", "a JSON object is expected, this is a list"),
        (b'[{"a": 1}, {"a": "\\ud800"}]', ", row 2", "contains half of a surrogate pair"),
        (b'[{"a": 1}, {"\\udfff": 1}]', ", row 2", "contains half of a surrogate pair"),
        (b'[{"a": NaN}]', "", "not usable JSON: NaN is not JSON"),
        (b'[{"a": 1, "b": 2, "a": 3}]', "", "not usable JSON: the key 'a' is twice in one object"),
        (b'{"data": [{"a": 1}], "data": [{"a": 2}]}', "", "not usable JSON: the key 'data' is twice in one object"),
        (b"[" * 200_000, "", "not usable JSON: maximum recursion depth"),
        (b'[{"a": ' + b"[" * 150 + b"]" * 150 + b"}]", "", "not usable JSON: more than 100 levels of lists and objects"),
        (b'[{"id": 1}, {"id": "1"}]', ", row 2", "id: this id is already in row 1 (got '1'). Give each row its own id."),
    ],
)
def test_a_broken_json_file_is_refused_where_it_breaks(tmp_path: Path, content: bytes, place: str, message: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}{place}: {message}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "content",
    [b"PAR1", b"", b"document,summary\nd,s\n", b"PAR1" + b"\0" * 50 + b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1"],
)
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "data.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.parquet: not a whole Parquet file: .*Write it again") as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_gives_rows_or_one_error(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "data.parquet"
    table = pyarrow.table({"document": [f"text {n} é" for n in range(50)], "answers": [{"text": ["a"]}] * 50})
    parquet.write_table(table, path, compression="none")
    whole, draw, refused = path.read_bytes(), random.Random(0), 0
    for attempt in range(150):
        content = bytearray(whole)
        if attempt % 2:
            content = content[: draw.randrange(len(content))]
        else:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            read_rows(path)
        except InputError as error:
            assert str(error).startswith(str(path))  # noqa: PT017  (a change within a text is not noticed, and is no error)
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
    assert refused >= 75


SEEDS = [
    b'{"id": 1, "document": "d", "summary": "s"}',
    b'[{"document": "d", "summary": "s"}]',
    b'{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}]}',
    b'document,summary\n"a, ""b""\n",c\n',
    b"document\tsummary\na\tb\n",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from(SEEDS),
    place=st.integers(0, 100),
    removed=st.integers(0, 20),
    added=st.binary(max_size=8) | st.text('"\\{}[],:\t\r\n\u2028 \0ud8019eE-', max_size=8).map(str.encode),
    suffix=st.sampled_from([".jsonl", ".json", ".csv", ".tsv"]),
)
def test_any_bytes_are_rows_or_one_error(tmp_path: Path, seed: bytes, place: int, removed: int, added: bytes, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(seed[:place] + added + seed[place + removed :])
    try:
        rows = read_rows(path)
        examples(rows, Summarization(), path)
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  (either outcome is right)
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    assert rows
    assert all(row.line >= 1 for row in rows)


HOSTILE = {
    "a megabyte": "word " * 200_000,
    "a million spaces": " " * 1_000_000 + "x",
    "control characters": "a\x00b\x1b[31m\x7f\x85\u2028c",
    "right to left": "\u202eabc\u200f \u0627\u0644 \u202c",
    "braces": "{document} {0} {{ %s \\",
    "unpaired marks": "\u0301\u0e31\u200d\ufe0f",
    "emoji": "👩‍👩‍👧‍👦 🇰🇪",
    "quotes and line ends": "a \"b\", 'c'\r\nd\te;f",
}


def write_kind(path: Path, rows: list[dict[str, object]]) -> None:
    """The rows as a file of the kind that the suffix names."""
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        content = "\n".join(lines) if path.suffix == ".jsonl" else f"[{', '.join(lines)}]"
        path.write_text(content, encoding="utf-8", newline="")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_odd_text_goes_through_the_loader_unharmed(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    write_kind(path, [{"document": text, "summary": text[-50:]}, {"document": "d", "summary": "s"}])
    if suffix in (".csv", ".tsv") and "\0" in text:
        with pytest.raises(InputError, match=rf"data\{suffix}:2: holds a null byte"):
            read_rows(path)
        return
    rows = read_rows(path)
    assert rows[0].fields == {"document": text, "summary": text[-50:]}
    example, _ = examples(rows, Summarization(), path)
    assert example.document == text.strip()
    assert len(example.prompt) <= 4000 + len("\n\nSummary:")
    assert example.prompt.endswith("\n\nSummary:")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("document", [None, "", " \u3000\n", ["d"], {"text": "d"}, 7, 0.5, True, b"d"], ids=repr)
def test_a_field_that_is_not_text_is_refused_with_its_position(tmp_path: Path, document: object, suffix: str) -> None:
    if isinstance(document, bytes) and suffix != ".parquet":
        pytest.skip("JSON has no bytes")
    path = tmp_path / f"data{suffix}"
    write_kind(path, [{"document": document, "summary": "s"}])
    where = f"{path}:1" if suffix == ".jsonl" else f"{path}, row 1"
    with pytest.raises(InputError) as caught:
        examples(read_rows(path), Summarization(), path)
    assert str(caught.value).startswith(f"{where}: document: is ")


BROKEN = {
    "rows.jsonl": (GOOD + b'{"document": \n', "rows.jsonl:2: not JSON"),
    "rows.json": (b'[{"document": "d"},\n 3]', "rows.json, row 2: a JSON object is expected"),
    "rows.csv": (b'document,summary\nd,s\n"d,s\n', "rows.csv:3: quotes that do not match"),
    "rows.tsv": (b"document\tsummary\nd\n", "rows.tsv:2: has 1 values, the header has 2"),
    "rows.parquet": (b"document,summary\nd,s\n", "rows.parquet: not a whole Parquet file"),
    "hub:owner/name": (None, "hub:owner/name: cannot be read from the hub"),
}


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """`pomona evaluate --data SOURCE` for each broken source: code, output and errors; the last of them as a process of its own."""
    folder = tmp_path_factory.mktemp("broken")
    for name, (content, _) in BROKEN.items():
        if content is not None:
            (folder / name).write_bytes(content)
    # Were a model loaded before the data are read, the error would be of the model that is not there.
    ways = dict.fromkeys(BROKEN, call) | {list(BROKEN)[-1]: process}
    outcomes = {name: way(folder, "evaluate", "--data", name, "--model", "./no-model") for name, way in ways.items()}
    return {name: (outcome.code, outcome.out, outcome.err) for name, outcome in outcomes.items()}


@pytest.mark.parametrize("name", BROKEN)
def test_the_command_line_refuses_it_in_one_line_before_a_model_is_loaded(
    evaluations: dict[str, tuple[int, str, str]], name: str
) -> None:
    code, out, err = evaluations[name]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {BROKEN[name][1]}")


# BERTScore needs an encoder, and has tests of its own.
@pytest.mark.parametrize("name", [name for name in metrics if name != "bert_score"])
@pytest.mark.parametrize("language", ["en", "ar", "zh"])
def test_odd_predictions_are_scored_by_every_metric(name: str, language: str) -> None:
    metric = metrics.create(name, {"language": language})
    for text in [*HOSTILE.values(), "\ud800", "", "\n"]:
        cut = text[:20_000]
        statistics = metric.statistics(cut, ["a reference of five words", "مرجع", "\ud800"])
        (score,) = metric.aggregate(statistics[None], np.ones(1))
        assert 0.0 <= score <= 100.0, (text[:20], score)
    assert metric.aggregate(metric.statistics("a reference", [""])[None], np.ones(1)) == 0.0
