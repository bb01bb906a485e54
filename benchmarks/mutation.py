"""Mutation testing: one operator or constant of a file is changed at a time, and the room's tests must notice.

    python -m benchmarks mutation                                  every file of the pure rooms (hours)
    python -m benchmarks mutation --file merging/weights.py --own --most 20

For each mutant a child process is forked, in which torch, numpy and pytest are imported already and `pomona` comes from a copy of
the sources with the mutant in it. The child runs the file's own tests first, then the room's, and ends at the first failure. A
mutant that takes ten times as long as the tests without one counts as noticed, too. Prints the survivors, and the share of mutants
that was noticed; those that change nothing that can be observed are named in `mutation_equal.txt` and left out.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "src" / "pomona"
ROOMS = ("merging", "importance", "pruning", "control", "metrics")
EQUAL = Path(__file__).with_name("mutation_equal.txt")
_IMPORTED = ("torch", "numpy", "scipy", "pytest", "safetensors.torch", "pydantic")  # no plug-in of pytest: it would warn
_COMPARED = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "is": "is not", "is not": "is", "in": "not in", "not in": "in",
}  # fmt: skip
_COMPUTED = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "@": "*", "**": "*", "&": "|", "|": "&"}
_SYMBOLS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not",
    ast.In: "in", ast.NotIn: "not in", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//",
    ast.MatMult: "@", ast.Pow: "**", ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip


class Mutant(NamedTuple):
    """One change: what stands in a file from one byte to another, and what takes its place."""

    file: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        """As survivors are printed."""
        return f"{self.file}:{self.line}: {self.old} -> {self.new}"

    @property
    def name(self) -> str:
        """As `mutation_equal.txt` names it, wherever its line stands."""
        return f"{self.file}: {self.old} -> {self.new}"


def mutants(file: Path) -> Iterator[Mutant]:
    """Every change of a file; docstrings, annotations and messages stay."""
    source = file.read_text(encoding="utf-8")
    lines = [0]
    for text in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(text))
    raw, name = source.encode(), str(file.relative_to(SOURCES))

    def place(line: int | None, column: int | None) -> int:
        return lines[(line or 1) - 1] + (column or 0)

    def between(left: ast.expr, right: ast.expr, operator: object, table: dict[str, str]) -> Iterator[Mutant]:
        symbol = _SYMBOLS.get(type(operator))
        start, end = place(left.end_lineno, left.end_col_offset), place(right.lineno, right.col_offset)
        if symbol in table and (at := raw.find(symbol.encode(), start, end)) >= 0:
            yield Mutant(name, raw.count(b"\n", 0, at) + 1, at, at + len(symbol), _shown(raw, at), table[symbol])

    for node in _code(ast.parse(source)):
        if isinstance(node, ast.Compare):
            for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                yield from between(left, right, operator, _COMPARED)
        elif isinstance(node, ast.BinOp):
            yield from between(node.left, node.right, node.op, _COMPUTED)
        elif isinstance(node, ast.BoolOp):
            word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                start, end = place(left.end_lineno, left.end_col_offset), place(right.lineno, right.col_offset)
                at = raw.find(f" {word} ".encode(), start, end + 1) + 1
                if at > 0:
                    yield Mutant(name, raw.count(b"\n", 0, at) + 1, at, at + len(word), _shown(raw, at), other)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            at = place(node.lineno, node.col_offset)
            yield Mutant(name, node.lineno, at, at + 4, _shown(raw, at), "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = node.value
            new = str(not value) if isinstance(value, bool) else str(value + 1) if isinstance(value, int) else repr(value * 2 + 1)
            at = place(node.lineno, node.col_offset)
            yield Mutant(name, node.lineno, at, place(node.end_lineno, node.end_col_offset), _shown(raw, at), new)


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute: without annotations, the messages of errors, and what only a type checker reads."""
    yield node
    for field, value in ast.iter_fields(node):
        skipped = field in {"annotation", "returns", "type_comment"} or isinstance(node, ast.Raise | ast.JoinedStr)
        type_checking = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if not skipped and not type_checking:
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, ast.AST):
                    yield from _code(inner)


def _shown(raw: bytes, at: int) -> str:
    start, end = raw.rfind(b"\n", 0, at) + 1, raw.find(b"\n", at)
    return " ".join(raw[start:end].decode().split()) + f" @{at - start}"


def tests_of(file: str, *, own: bool) -> list[str]:
    """The tests that must notice a change in a file: its own first, then the room's and the room's conformance suite.

    Args:
        file: within `src/pomona`.
        own: its own alone, where it has any.
    """
    room, name = Path(file).parts[0], Path(file).stem
    found = [f"tests/{room}/test_{name}.py", f"tests/conformance/test_{room}.py", f"tests/{room}"]
    if own and (REPOSITORY / found[0]).exists():
        return found[:1]
    return [path for path in found if (REPOSITORY / path).exists()]


def _run(copy: Path, tests: Sequence[str], limit: float) -> tuple[bool, float]:
    """Whether the tests pass on a copy of the sources, and how long that took; False where they take longer than the limit."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.path[:0] = [str(copy), str(REPOSITORY), str(REPOSITORY / "tests" / "support")]
        sys.dont_write_bytecode = True
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests])))
    while time.monotonic() - started < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0, time.monotonic() - started
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, limit


def run(arguments: list[str]) -> bool:
    """Print the survivors; False where fewer than 85 % of a room's mutants were noticed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks mutation", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--room", choices=ROOMS, action="append", help="of these rooms alone")
    parser.add_argument("--file", action="append", help="these files alone, such as merging/weights.py")
    parser.add_argument("--most", type=int, help="of each file so many mutants, drawn by seed 0")
    parser.add_argument("--own", action="store_true", help="run each file's own tests alone: quick, and stricter")
    given = parser.parse_args(arguments)
    files = [SOURCES / file for file in given.file or ()]
    files = files or [file for room in given.room or ROOMS for file in sorted((SOURCES / room).rglob("*.py"))]
    equal = set(EQUAL.read_text(encoding="utf-8").splitlines()) if EQUAL.exists() else set()
    for module in _IMPORTED:
        importlib.import_module(module)
    noticed = total = 0
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        shutil.copytree(SOURCES, copy / "pomona", ignore=shutil.ignore_patterns("__pycache__"))
        for file in files:
            name = str(file.relative_to(SOURCES))
            found = [one for one in mutants(file) if one.name not in equal]
            if given.most is not None and len(found) > given.most:
                found = sorted(random.Random(0).sample(found, given.most), key=lambda one: one.start)
            if not found:
                continue
            tests = tests_of(name, own=given.own)
            passes, seconds = _run(copy, tests, 600)
            if not passes:
                print(f"{name}: its tests fail without a mutant", file=sys.stderr)
                return False
            raw, survived = file.read_bytes(), 0
            for one in found:
                (copy / "pomona" / name).write_bytes(raw[: one.start] + one.new.encode() + raw[one.end :])
                if _run(copy, tests, 10 * seconds + 10)[0]:
                    survived += 1
                    print(f"survived  {one}", flush=True)
            (copy / "pomona" / name).write_bytes(raw)
            noticed, total = noticed + len(found) - survived, total + len(found)
            print(f"{name}: {len(found) - survived} of {len(found)} noticed ({seconds:.1f} s each)", flush=True)
    print(f"noticed: {noticed} of {total}, {noticed / max(total, 1):.1%}")
    return noticed >= 0.85 * total
