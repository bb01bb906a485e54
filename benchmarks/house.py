"""The size of the program, and the files that a training step passes through: `python -m benchmarks house [--root CHECKOUT]`.

Prints, for this checkout or another one: lines by room; files and hops of a training step (`house_trace`); the number of modules
that `fit` imports; the public names; and, with `--extensions`, the files that a component of each kind touches (takes minutes). The
figures are the same on every machine, so two revisions can be compared line by line.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.house_extensions import extensions

REPOSITORY = Path(__file__).resolve().parents[1]
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


class Lines(NamedTuple):
    """Of Python files: how many, all their lines, and those with code: no blank one, comment or docstring."""

    files: int
    lines: int
    code: int

    def __add__(self, other: Lines) -> Lines:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Both together."""
        return Lines(*(one + two for one, two in zip(self, other, strict=True)))


def run(arguments: Sequence[str] = ()) -> bool:
    """Print everything; True."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks house", description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY, metavar="CHECKOUT", help="the checkout to measure")
    parser.add_argument("--extensions", action="store_true", help="add a component of each kind to a copy, and run its tests")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    sources = root / "src" / "pomona"
    _print_lines(sources)
    found = _asked(root, "house_trace.py", str(sources))
    _print_steps(found)
    _print_names(found["names"])
    if options.extensions:
        print("| a new component in | files of `src/`; tests of the registry |\n| --- | --- |")
        for kind, outcome in extensions(root, REPOSITORY):
            print(f"| {kind}/ | {outcome} |", flush=True)
    return True


def _print_lines(sources: Path) -> None:
    rooms: dict[str, Lines] = defaultdict(lambda: Lines(0, 0, 0))
    for path in sorted(sources.rglob("*.py")):
        inside = path.relative_to(sources).parts
        rooms[f"{inside[0]}/" if len(inside) > 1 else "(top)"] += lines_of(path.read_text(encoding="utf-8"))
    print("| room | files | lines | code |\n| --- | ---: | ---: | ---: |")
    for room, counts in sorted(rooms.items()):
        print(f"| {room} | {counts.files} | {counts.lines} | {counts.code} |")
    total = sum(rooms.values(), Lines(0, 0, 0))
    print(f"| all | {total.files} | {total.lines} | {total.code} |\n")


def lines_of(text: str) -> Lines:
    """The lines of one file."""
    documented = {number for node in _docstrings(ast.parse(text)) for number in range(node.lineno, (node.end_lineno or 0) + 1)}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return Lines(1, len(text.splitlines()), len(code - documented))


def _docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    """Texts that stand alone: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node


def _print_steps(found: dict[str, Any]) -> None:
    print("| training step | files | hops |\n| --- | ---: | ---: |")
    for speed, outcomes in found["steps"].items():
        for outcome, label in (("settled", "settled"), ("round", "with a controller's round")):
            counts = list(zip(*outcomes[outcome], strict=True))
            ranges = " | ".join(_range(one) for one in counts)
            print(f"| {label}, speed {speed} | {ranges or 'none | none'} |")
    print(f"\n`pomona.tuning.fit` imports {len(found['modules'])} modules of pomona, {found['direct']} of them by name.\n")


def _range(values: Sequence[int]) -> str:
    """The median, and the ends where they differ."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{statistics.median_low(values)} ({low} to {high})"


def _print_names(names: dict[str, list[str]]) -> None:
    print("| public names | how many | which |\n| --- | ---: | --- |")
    for kind, listed in names.items():
        print(f"| {kind} | {len(listed)} | {', '.join(listed)} |")
    print()


def _asked(root: Path, script: str, *arguments: str) -> Any:
    """What a script of this folder prints as JSON, with the packages of `root`."""
    from tests.tiny import save_tiny_model

    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny_model(Path(folder) / "model")
        path = {"PYTHONPATH": str(root / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", str(REPOSITORY / "benchmarks" / script), *arguments, str(model)]
        done = subprocess.run(command, env=os.environ | path, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(0 if run(sys.argv[1:]) else 1)
