from __future__ import annotations

import datetime
import decimal
import importlib.util
import math
from pathlib import Path

import pytest

from pomona.data import Row, examples, read_rows
from pomona.data.tasks import Summarization
from pomona.errors import InputError, MissingPackageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(path: Path, **columns: object) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def half_a_text() -> object:
    """A text column of which the second value is not UTF-8."""
    return pyarrow.StringArray.from_buffers(2, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"a\xff"))


def test_values_are_plain_and_nulls_stay(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.parquet",
        text=["é\u2028", None],
        number=[7, None],
        share=pyarrow.array([0.5, math.inf]),
        answers=[{"text": ["a", "b"], "start": [1, 2]}, None],
        on=[datetime.date(2020, 2, 29), None],
        at=pyarrow.array([datetime.datetime(2020, 2, 29, 12), None], pyarrow.timestamp("us")),
        price=[decimal.Decimal("1.50"), None],
        label=pyarrow.array(["x", "x"]).dictionary_encode(),
        raw=[b"\xff", None],
    )
    assert read_rows(path) == [
        Row(
            1,
            {
                "text": "é\u2028",
                "number": 7,
                "share": 0.5,
                "answers": {"text": ["a", "b"], "start": [1, 2]},
                "on": "2020-02-29",
                "at": "2020-02-29T12:00:00",
                "price": "1.50",
                "label": "x",
                "raw": b"\xff",
            },
        ),
        Row(2, dict.fromkeys(["text", "number"]) | {"share": math.inf, "answers": None, "on": None, "at": None}
            | {"price": None, "label": "x", "raw": None}),
    ]  # fmt: skip
    assert type(read_rows(path)[0].fields["number"]) is int


def test_columns_go_into_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", answers=[{"text": ["a", "b"]}], translation=[{"en": "yes", "sw": "ndiyo"}])
    (row,) = read_rows(path, {"answers": "answers.text", "source": "translation.en"})
    assert (row.fields["answers"], row.fields["source"]) == (["a", "b"], "yes")


def test_bytes_and_nulls_are_refused_where_a_text_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", document=[b"\xff", b"x"], summary=["s", "s"])
    with pytest.raises(InputError, match=r"rows\.parquet, row 1: document: is b'\\xff': a text is expected"):
        examples(read_rows(path), Summarization(), path)
    path = write(tmp_path / "rows.parquet", document=["d", None], summary=["s", "s"])
    with pytest.raises(InputError, match=r"rows\.parquet, row 2: document: is null: a text is expected"):
        examples(read_rows(path), Summarization(), path)


def test_repeated_ids_are_refused_by_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows\.parquet, row 3: id: this id is already in row 1 \(got '1'\)"):
        read_rows(write(tmp_path / "rows.parquet", id=[1, 2, 1]))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (half_a_text(), "row 2: holds a value that cannot be read: 'utf-8' codec can't decode byte 0xff in position 0"),
        (pyarrow.array([0, 2**62], pyarrow.timestamp("s")), "row 2: holds a value that cannot be read: "),
        (pyarrow.array([None, 5], pyarrow.timestamp("us", "Nowhere/Land")), "row 2: holds a value that cannot be read: "),
    ],
    ids=["not UTF-8", "far future", "time zone"],
)
def test_a_value_that_python_cannot_hold_is_refused_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: object, message: str
) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"")
    # Parquet does not store all of these; a table from the hub may hold them.
    table = pyarrow.table({"document": column})
    monkeypatch.setattr(parquet.ParquetFile, "__init__", lambda *_: None)
    monkeypatch.setattr(parquet.ParquetFile, "read", lambda _: table)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_two_columns_with_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), path)
    with pytest.raises(InputError, match=r"two columns have one name \(got 'text'\)"):
        read_rows(path)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows\.parquet: has no rows"):
        read_rows(write(tmp_path / "rows.parquet", a=pyarrow.array([], pyarrow.string())))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.parquet", a=["x"])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(
        MissingPackageError, match=r'need pyarrow, which is not installed\. Install it with `pip install "pomona\[data\]"'
    ):
        read_rows(path)
