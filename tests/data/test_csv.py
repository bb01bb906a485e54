from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.data import Row, read_rows
from pomona.data.formats.delimited import parse_delimited
from pomona.errors import InputError


def test_values_are_texts_and_rows_know_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        '\ufeffid, document ,summary\r\n1,"two\r\nlines, and ""quotes""",s\r\n\r\n2,,"5"" pipe"\r\n3,a "b" c,NaN\r\n'.encode()
    )
    assert read_rows(path) == [
        Row(2, {"id": "1", "document": 'two\r\nlines, and "quotes"', "summary": "s"}),
        Row(5, {"id": "2", "document": "", "summary": '5" pipe'}),
        Row(6, {"id": "3", "document": 'a "b" c', "summary": "NaN"}),
    ]


def test_tabs_separate_a_tsv_and_commas_do_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('document\tsummary\na, b\t"c\td"\n')
    assert read_rows(path) == [Row(2, {"document": "a, b", "summary": "c\td"})]


@settings(max_examples=60, deadline=None)
@given(
    table=st.lists(
        st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=2, max_size=2), min_size=1
    ),
    delimiter=st.sampled_from([",", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], delimiter: str, end: str
) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *table])
    path = tmp_path_factory.getbasetemp() / "round.csv"
    path.write_bytes(buffer.getvalue().encode())
    assert [list(row.fields.values()) for row in parse_delimited(path, delimiter)] == table


def test_a_value_may_be_longer_than_csv_s_own_limit(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'document,summary\n"{"word, " * 200_000}",s\n')
    before = csv.field_size_limit()
    assert len(str(read_rows(path)[0].fields["document"])) == 1_200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"a,b\n1,2\n3\n", 3, "has 1 values, the header has 2. Put a value that contains the delimiter or a line end in double"),
        (b"a,b\n1,2,3\n", 2, "has 3 values, the header has 2"),
        (b'a,b\n"x\ny",2\n3,4,5\n', 4, "has 3 values"),
        (b"\na,\n1,2\n", 2, "column 2 has no name. The first line names the columns."),
        (b"a, a\n1,2\n", 1, "two columns have one name (got 'a')"),
        (b'a,b\n1,2\n"3,4\n5,6\n', 3, "quotes that do not match: unexpected end of data. Close the quotes; within them, write"),
        (b'a,b\n"x" y,2\n', 2, "quotes that do not match: ',' expected after '\"'"),
        (b"a,b\n1,2\n3,\x00\n", 3, "holds a null byte. Save the file as UTF-8 text."),
        ("a,b\n1,2\n".encode("utf-16-le"), 1, "holds a null byte"),
        (b"a,b\n1,2\n\n3,caf\xe9\n", 4, "not UTF-8: byte 0xe9 at 6. Save the file as UTF-8."),
        (b"id,b\nx,2\ny,2\nx,3\n", 4, "id: this id is already on line 2 (got 'x'). Give each row its own id."),
    ],
)
def test_a_broken_line_is_refused_with_its_number(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}:{line}: {message}")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n", b"a,b\n", b"a,b\n\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.csv: has no rows\. Write the columns' names on the first line"):
        read_rows(path)
