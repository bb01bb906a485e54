"""The embedded corpus: docstrings of installed packages, as pairs of a summary line and its document: the rest, or the code.

No text is copied into this repository and no package is imported: sources are found on disk and read with `ast`.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pomona.data.content import normalised
from pomona.errors import InputError

Documents = Literal["text", "code"]
DOCUMENT_CHARACTERS: Mapping[Documents, tuple[int, int]] = {"text": (120, 600), "code": (120, 1200)}
SUMMARY_CHARACTERS = (20, 100)
_SHINGLE_WORDS = 4
_NEAR_SHARE = 0.5
_NOT_THE_PACKAGE = frozenset({"test", "tests", "__pycache__"})
_NOT_THE_LIBRARY = _NOT_THE_PACKAGE | {"site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo", "ensurepip"}
_BLANK_LINES = re.compile(r"\n{3,}")
# A string whose first line is like a summary, for texts with more text after it: other files are not parsed, which is 100 times
# slower.
_CANDIDATE: Mapping[Documents, re.Pattern[str]] = {
    "text": re.compile(r"""(\"{3}|'{3})\\?\s*[^\n]{19,99}\.[ \t]*\n(?:(?!\1)[\s\S]){120,}?\1"""),
    "code": re.compile(r"""(\"{3}|'{3})\\?\s*[^\n]{19,99}\.[ \t]*(\n|\1)"""),
}


def docstring_rows(package: str, documents: Documents = "text") -> list[dict[str, str]]:
    """The docstrings of an installed package as rows of the summarization task, without repeats and near-repeats.

    The summary is a docstring's first line (20 to 100 characters, ending in a full stop). The document is the docstring's rest,
    without its indentation (120 to 600 characters); or the code of the function that has the docstring, without the docstring,
    comments and decorators, in the layout of `ast.unparse` (120 to 1,200 characters). Of pairs with the same document, the same
    summary, or near-equal documents (more than half of the shorter one's four-word sequences, see `without`), the first is kept.

    Args:
        package: "stdlib" for the interpreter's standard library, or a top-level package's name ("torch"); it is not imported.
        documents: `text`: the docstrings' rests; `code`: the functions.

    Returns:
        Rows `id` (`torch/nn/functional.py:relu`), `document`, `summary`, ordered by path, then by place in the file. A second
        docstring of one name in a file has `#2` in its id. Files that are not UTF-8 or do not parse are skipped.

    Raises:
        InputError: no such package is installed, or it has no sources in Python.
    """
    seen = _Seen()
    rows: list[dict[str, str]] = []
    with _no_cycle_search():
        for path, name in _sources(package):
            for row in _pairs(path, name, documents):
                if not seen.covers(row):
                    seen.add(row)
                    rows.append(row)
    return rows


def without(rows: Iterable[Mapping[str, str]], others: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows that `others` do not contain: no equal document or summary (normalised), and no near-equal document.

    Near-equal: more than half of the shorter document's four-word sequences occur in one document of the other list.

    Args:
        rows: rows with `document` and `summary`.
        others: the rows to exclude, in the same form.
    """
    seen = _Seen()
    for row in others:
        seen.add(row)
    return [dict(row) for row in rows if not seen.covers(row)]


class _Seen:
    """Rows to compare with, indexed by document, summary and sequences of words."""

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._rows_of_shingle: dict[str, list[int]] = {}
        self._sizes: list[int] = []

    def add(self, row: Mapping[str, str]) -> None:
        self._exact.update(_exact_keys(row))
        shingles = _shingles(row["document"])
        for shingle in shingles:
            self._rows_of_shingle.setdefault(shingle, []).append(len(self._sizes))
        self._sizes.append(len(shingles))

    def covers(self, row: Mapping[str, str]) -> bool:
        if not self._exact.isdisjoint(_exact_keys(row)):
            return True
        shingles = _shingles(row["document"])
        shared: dict[int, int] = {}
        for shingle in shingles:
            for index in self._rows_of_shingle.get(shingle, ()):
                shared[index] = shared.get(index, 0) + 1
        return any(count > _NEAR_SHARE * min(len(shingles), self._sizes[index]) for index, count in shared.items())


@contextmanager
def _no_cycle_search() -> Iterator[None]:
    """Parse without the cyclic garbage collector: syntax trees have no cycles, and the search takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _exact_keys(row: Mapping[str, str]) -> tuple[str, str]:
    return f"document:{normalised(row['document'])}", f"summary:{normalised(row['summary'])}"


def _shingles(document: str) -> set[str]:
    words = re.findall(r"\w+", normalised(document))
    return {" ".join(words[start : start + _SHINGLE_WORDS]) for start in range(max(1, len(words) - _SHINGLE_WORDS + 1))}


def _sources(package: str) -> list[tuple[Path, str]]:
    """(file, its name in ids) of each source, sorted by name."""
    if package == "stdlib":
        root, prefix, skipped = Path(sysconfig.get_path("stdlib")), "stdlib/", _NOT_THE_LIBRARY
    else:
        root, prefix, skipped = _package_root(package), "", _NOT_THE_PACKAGE
    if root.is_file():
        return [(root, root.name)]
    base = root if prefix else root.parent
    found = [(path, path.relative_to(base)) for path in root.rglob("*.py")]
    return sorted(
        ((path, f"{prefix}{inner.as_posix()}") for path, inner in found if skipped.isdisjoint(inner.parts)),
        key=lambda source: source[1],
    )


def _package_root(package: str) -> Path:
    """The package's folder, or the file of a package that is one file."""
    # A dotted name would make find_spec import the parent.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None:
        raise InputError("no such package is installed", field="package", value=package, fix="Install it, or name another")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise InputError("the package has no sources in Python", field="package", value=package, fix="Name another")
    return Path(spec.origin)


def _pairs(path: Path, name: str, documents: Documents) -> Iterator[dict[str, str]]:
    """The pairs of one file, in the order of the source."""
    try:
        source = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return
    if not _CANDIDATE[documents].search(source):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    times: dict[str, int] = {}
    for qualified, node, docstring in _docstrings(tree, ()):
        times[qualified] = times.get(qualified, 0) + 1
        pair = _pair(docstring) if documents == "text" else _pair_of_code(node, docstring)
        if pair is not None:
            again = f"#{times[qualified]}" if times[qualified] > 1 else ""
            yield {"id": f"{name}:{qualified}{again}", "document": pair[0], "summary": pair[1]}


def _docstrings(node: ast.AST, qualified: tuple[str, ...]) -> Iterator[tuple[str, ast.AST, str]]:
    """(qualified name, node, docstring as written) of the module, its classes and functions, in the order of the source."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield ".".join(qualified) or "module", node, docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, (*qualified, child.name))
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _docstrings(child, qualified)


def _pair(docstring: str) -> tuple[str, str] | None:
    """(document, summary), or None if the docstring does not fit the limits."""
    summary, _, rest = inspect.cleandoc(docstring).partition("\n")
    summary = summary.strip()
    document = _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in inspect.cleandoc(f"\n{rest}").split("\n"))).strip()
    fits = _is_summary(summary) and _within(document, DOCUMENT_CHARACTERS["text"])
    return (document, summary) if fits else None


def _pair_of_code(node: ast.AST, docstring: str) -> tuple[str, str] | None:
    """(code, summary) of a function, or None if it is none, or does not fit the limits."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) == 1:
        return None
    summary = inspect.cleandoc(docstring).partition("\n")[0].strip()
    if not _is_summary(summary):
        return None
    node.body, node.decorator_list = node.body[1:], []
    code = ast.unparse(node)
    return (code, summary) if _within(code, DOCUMENT_CHARACTERS["code"]) else None


def _is_summary(line: str) -> bool:
    return line.endswith(".") and _within(line, SUMMARY_CHARACTERS)


def _within(text: str, limits: tuple[int, int]) -> bool:
    return limits[0] <= len(text) <= limits[1]
