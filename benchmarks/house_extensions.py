"""Measure the files that a new component touches: add each example of the how-to pages to a copy of a checkout, and run its suites.

A checkout without an example of a kind gets this checkout's example; if its modules have other names, the example is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

COPIED = ("src", "tests", "docs", "pyproject.toml", "CONTRIBUTING.md", "README.md", "CHANGELOG.md")
_ENDED = re.compile(r"^(PASSED|FAILED|ERROR) (\S+)", re.MULTILINE)


def extensions(root: Path, ours: Path) -> Iterator[tuple[str, str]]:
    """(kind, what adding one to the sources of `root` takes, and how the tests over its registry end)."""
    from tests.docs.how_to import SUITES, examples

    found = {one.kind: one for one in examples(ours)} | {one.kind: one for one in examples(root) if one.package and one.tests}
    for kind, suites in SUITES.items():
        example, folder = found[kind], root / "src" / "pomona" / kind
        if not folder.is_dir():
            yield kind, "no such folder"
            continue
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary)
            for name in COPIED:
                if (root / name).is_dir():
                    shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
                elif (root / name).exists():
                    shutil.copy(root / name, copy)
            before = _content(copy / "src")
            edited = [path for path in example.tests if (copy / path).exists()]  # what a page adds to a test that is there
            for path, text in (example.module, *((path, text) for path, text in example.tests.items() if path not in edited)):
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                (copy / path).write_text(text, encoding="utf-8")
            package = copy / example.package
            package.write_text(package.read_text(encoding="utf-8") + example.line, encoding="utf-8")
            after = _content(copy / "src")
            new, changed = after.keys() - before.keys(), [path for path in before if after[path] != before[path]]
            tests = [path for path in dict.fromkeys((*suites, *example.tests)) if (copy / path).exists()]
            counts = f"{len(new)} new, {len(changed)} changed ({example.package.rpartition('/')[2]})"
            counts += "".join(f", and the page asks for a change of {path}" for path in edited)
            yield kind, f"{counts}; {_outcome(copy, example.name, tests)}"


def _content(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.py")}


def _outcome(copy: Path, name: str, tests: list[str]) -> str:
    """How many tests with this name pass, and which do not."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-k", name, *tests]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    ended = _ENDED.findall(done.stdout)
    if "PASSED" not in dict(ended):
        return "the example needs names that this checkout does not have"
    failed = sorted({test.partition("[")[0].rpartition("::")[2] or test for outcome, test in ended if outcome != "PASSED"})
    passed = sum(outcome == "PASSED" for outcome, _ in ended)
    return f"{passed} tests pass" + (f", these fail: {', '.join(failed)}" if failed else "")
