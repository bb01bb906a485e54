"""The examples of the how-to pages as files: what a reader who follows a page to the letter writes where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

PAGES = ("CONTRIBUTING.md", "docs/how-to/add-a-component.md", "docs/how-to/add-a-task.md")
SUITES = {
    "merging": ("tests/conformance/test_merging.py", "tests/conformance/test_baselines.py", "tests/evaluation/test_baselines.py"),
    "backbone/trainable": ("tests/conformance/test_trainable.py", "tests/conformance/test_masks.py"),
    "backbone/speed": ("tests/conformance/test_speed.py",),
    "importance": ("tests/conformance/test_importance.py", "tests/importance", "tests/tuning/test_masks.py"),
    "control": ("tests/conformance/test_controllers.py",),
    "data/tasks": ("tests/conformance/test_tasks.py",),
    "metrics": ("tests/conformance/test_metrics.py", "tests/hostile/test_metrics.py", "tests/hostile/test_data.py"),
}
"""The folder of a kind -> all tests that run over its registry."""

_BLOCK = re.compile(
    r"(?P<before>[^\n]*`(?P<path>(?:src|tests)/[\w/]+\.py)`[^\n`]*(?:`[^\n`]*`[^\n`]*)?)\n\n```python\n(?P<text>.*?)^```$",
    re.M | re.S,
)
_NAME = re.compile(r'\.register\("(\w+)"\)')


@dataclass
class Example:
    """A component to add.

    Args:
        module: its new file under `src/pomona`, and the text.
        package: the `__init__.py` that gets a line.
        line: that line.
        tests: new files with tests of its own.
    """

    module: tuple[str, str]
    package: str = ""
    line: str = ""
    tests: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name under which it is registered."""
        found = _NAME.search(self.module[1])
        assert found is not None
        return found[1]

    @property
    def kind(self) -> str:
        """Its folder under `src/pomona`."""
        return str(PurePosixPath(self.module[0]).parent.relative_to("src/pomona"))


def examples(root: Path) -> Iterator[Example]:
    """The components that the pages of a checkout add, page by page."""
    for page in PAGES:
        example = None
        for match in _BLOCK.finditer((root / page).read_text(encoding="utf-8") if (root / page).exists() else ""):
            path, text = match["path"], match["text"]
            if path.startswith("src/") and not path.endswith("__init__.py"):
                if example is not None:
                    yield example
                example = Example((path, text))
            elif example is not None and path.endswith("__init__.py"):
                example.package, example.line = path, text
            elif example is not None:
                example.tests[path] = text
        if example is not None:
            yield example
