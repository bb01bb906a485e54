from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pomona.data.corpora import docstring_rows, without
from pomona.data.corpora.docstrings import DOCUMENT_CHARACTERS, SUMMARY_CHARACTERS
from pomona.errors import InputError

TREES = "ash birch cedar date elm fig gum hazel iroko juniper kauri larch maple neem oak pine quince rowan sorb"


def body(start: int) -> str:
    """A document of its own for each `start`: no run of four words in common with another."""
    names = TREES.split()
    return " ".join(f"{names[(start + n) % 19]}{start}" for n in range(19))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "orchard_fixture"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_pairs_come_from_modules_classes_and_functions_in_order(package: Path) -> None:
    (package / "sub" / "a.py").write_text(
        f'"""Module of the orchard.\n\n{body(1)}\n"""\n'
        f'class Tree:\n    """Something that bears fruit.\n\n    {body(2)[:60]}\n      {body(2)[60:]}   \n\n\n\n    End.\n    """\n'
        "    if True:\n        async def grow(self):\n"
        f'            r"""Grow a little every year.\n            {body(3)}\n            """\n'
        f'        def grow(self):\n            """Grow a lot in every year.\n\n            {body(4)}"""\n'
    )
    (package / "a.py").write_text(f'def prune():\n    """\n    Cut away what bears nothing.\n\n    {body(5)}\n    """\n')
    rows = docstring_rows("orchard_fixture")
    assert rows == [
        {"id": "orchard_fixture/a.py:prune", "document": body(5), "summary": "Cut away what bears nothing."},
        {"id": "orchard_fixture/sub/a.py:module", "document": body(1), "summary": "Module of the orchard."},
        {
            "id": "orchard_fixture/sub/a.py:Tree",
            "document": f"{body(2)[:60]}\n  {body(2)[60:]}\n\nEnd.".replace(" \n", "\n"),
            "summary": "Something that bears fruit.",
        },
        {"id": "orchard_fixture/sub/a.py:Tree.grow", "document": body(3), "summary": "Grow a little every year."},
        {"id": "orchard_fixture/sub/a.py:Tree.grow#2", "document": body(4), "summary": "Grow a lot in every year."},
    ]
    assert "orchard_fixture" not in sys.modules


@pytest.mark.parametrize(
    ("summary", "document"),
    [
        ("No full stop at the end", body(1)),
        ("Too short line.", body(1)),
        (f"{'Too long ' * 11}line.", body(1)),
        ("The document is too short.", "one two three"),
        ("The document is too long.", " ".join(body(n) for n in range(8))),
    ],
)
def test_docstrings_outside_the_limits_are_left_out(package: Path, summary: str, document: str) -> None:
    (package / "a.py").write_text(f'"""{summary}\n\n{document}\n"""\n')
    assert docstring_rows("orchard_fixture") == []


def test_equal_documents_equal_summaries_and_near_equal_documents_stay_once(package: Path) -> None:
    near = f"other words at the front {body(1)[30:]}"
    rows = [
        ("The first of its kind.", body(1)),
        ("Another summary line here.", body(1).upper()),
        ("The FIRST  of its kind.", body(2)),
        ("Yet another summary line.", near),
        ("The last one is different.", body(3)),
    ]
    for number, (summary, document) in enumerate(rows):
        (package / f"m{number}.py").write_text(f'"""{summary}\n\n{document}\n"""\n')
    assert [row["summary"] for row in docstring_rows("orchard_fixture")] == ["The first of its kind.", "The last one is different."]


def test_code_is_the_function_without_its_docstring(package: Path) -> None:
    steps = "\n".join(f"    fruit_{number} = pick(basket, {number})  # the next one" for number in range(4))
    (package / "a.py").write_text(
        f'"""A module has no code of its own.\n\n{body(1)}\n"""\n'
        f'@cached\ndef harvest(basket, *, tired=False):\n    """Pick four fruits in a row.\n\n    {body(2)}\n    """\n'
        f"{steps}\n    return fruit_0\n"
        f'def empty():\n    """There is nothing but a docstring.\n\n    {body(3)}\n    """\n'
        f'def short():\n    """This one has very little code."""\n    return 1\n'
        f'def unfinished(basket):\n    """No full stop at the end"""\n{steps}\n'
    )
    code = "\n".join(f"    fruit_{number} = pick(basket, {number})" for number in range(4))
    assert docstring_rows("orchard_fixture", "code") == [
        {
            "id": "orchard_fixture/a.py:harvest",
            "document": f"def harvest(basket, *, tired=False):\n{code}\n    return fruit_0",
            "summary": "Pick four fruits in a row.",
        }
    ]


def test_files_that_cannot_be_read_or_parsed_are_skipped_without_a_warning(package: Path) -> None:
    good = f'"""The first of its kind.\n\n{body(1)} \\d\n"""\n'  # an escape that the parser warns of
    (package / "good.py").write_text(good)
    (package / "broken.py").write_text(good.replace("first", "second") + "def (:\n")
    (package / "latin.py").write_bytes(good.replace("first", "thïrd").encode("latin-1"))
    (package / "null.py").write_text(good.replace("first", "fourth") + "\0")
    (package / "tests").mkdir()
    (package / "tests" / "a.py").write_text(good.replace("first", "fifth").replace("zero", "0"))
    assert [row["id"] for row in docstring_rows("orchard_fixture")] == ["orchard_fixture/good.py:module"]


def test_without_drops_what_the_other_list_contains() -> None:
    def row(summary: str, document: str) -> dict[str, str]:
        return {"id": "", "document": document, "summary": summary}

    others = [row("A summary.", body(1)), row("B summary.", body(2))]
    rows = [row("C.", body(3)), row("b  SUMMARY.", body(4)), row("D.", f" {body(1)} "), row("E.", f"{body(2)[:-20]} and more")]
    assert without(rows, others) == [rows[0]]
    assert without(others, []) == others


@pytest.mark.parametrize("name", ["no_such_package_here", "torch.nn", "", "../x"])
def test_a_package_that_is_not_installed_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^package: no such package is installed"):
        docstring_rows(name)


def test_a_built_in_module_has_no_sources() -> None:
    with pytest.raises(InputError, match=r"^package: the package has no sources in Python \(got 'time'\)"):
        docstring_rows("time")


def test_a_real_package_gives_about_as_many_pairs_as_expected() -> None:
    rows = docstring_rows("numpy")
    assert 200 <= len(rows) <= 330
    assert len({row["id"] for row in rows}) == len(rows)
    assert [row["id"].partition(":")[0] for row in rows] == sorted(row["id"].partition(":")[0] for row in rows)
    for row in rows:
        assert DOCUMENT_CHARACTERS["text"][0] <= len(row["document"]) <= DOCUMENT_CHARACTERS["text"][1]
        assert SUMMARY_CHARACTERS[0] <= len(row["summary"]) <= SUMMARY_CHARACTERS[1]
        assert row["summary"].endswith(".")
        assert "\n" not in row["summary"]
