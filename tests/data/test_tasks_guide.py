"""The task that the how-to guide adds is one: it is registered, its own test passes, and it keeps the border and the span."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pomona.data.tasks import tasks

GUIDE = Path(__file__).parents[2] / "docs/how-to/add-a-task.md"


def test_the_worked_example_works(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    task, line, test = blocks
    assert line == "from pomona.data.tasks.keywords import Keywords\n"
    module = ModuleType("keywords")
    monkeypatch.setitem(sys.modules, "keywords", module)  # a dataclass looks its module up there
    try:
        exec(compile(task, "keywords.py", "exec"), module.__dict__)
        names: dict[str, Any] = {"__name__": "test_tasks_keywords"}
        exec(compile(test, "test_tasks_keywords.py", "exec"), names)
        names["test_the_keywords_stand_on_one_line"]()
        row = {"document": "一篇文章", "keywords": ["树"]}
        example = tasks.create("keywords", {"language": "zh", "form": "chat", "max_document_characters": 2}).example(row, "1")
        assert (example.prompt, example.body) == ("请列出下面文本的关键词，用逗号隔开。\n\n一篇", (20, 22))
        assert (example.target, example.cut_characters) == ("树", 2)
    finally:
        tasks._classes.pop("keywords", None)
