"""A first recipe, with comments, from data and adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pomona.data import examples, read_rows
from pomona.data.columns import mapped
from pomona.data.guess import Guess, guess
from pomona.data.splits import SplitSizes
from pomona.data.tasks import tasks
from pomona.errors import InputError

SCHEMA = "pomona.schema.json"
"""What the first line of the recipe names, for editors."""

_LEAST = 8
_MARGIN = 0.9  # documents that are nearly the same stay out of two splits, so not every row can be used

_TEXT = """# yaml-language-server: $schema={schema}
# A recipe of Pomona. Check it with `pomona check {file}`, run it with `pomona adapt {file}`.
# Keys that are not here have their defaults; `pomona schema` lists all of them. Paths are relative to the working folder.
name: {name}
seed: 0

# The frozen model: `embedded`, a folder, or a hub id. The adapters must be trained on it.
model: {model}

# What is learned: {reason}.
task: {{name: {task}}}
data:
  train: {data}  # one pool, from which the four splits are drawn; `dev` and `test` can be sources of their own
{columns}
# {count} different examples were found. The test split is used once, at the end; micro_dev is what the prune ratio is learned on.
splits: {{train: {train}, micro_dev: {micro_dev}, dev: {dev}, test: {test}}}

# The adapters that are merged: PEFT folders, or hub:owner/name. `weight` is the merge weight.
sources:
{sources}
# concat keeps every adapter's factors and trains them side by side; `pomona list` names the other methods.
merge: {{method: concat}}
tuning: {{epochs: 4, learning_rate: 2.0e-4, batch_size: 8, max_tokens: 512}}

# How much is pruned is learned within the run. For a given ratio: {{name: fixed, prune_ratio: 0.3}}
controller: {{name: bayes}}

# What the result is compared with.
evaluation:
  baselines: [zero_shot, target_lora, concat, merge_finetune]
"""


@dataclass(frozen=True)
class NewRecipe:
    """A recipe's text, and what was guessed for it.

    Args:
        text: YAML with comments.
        guessed: the task and the columns, with the reason.
        examples: number of different documents.
    """

    text: str
    guessed: Guess
    examples: int


def new_recipe(
    file: Path,
    data: str,
    adapters: Sequence[str],
    model: str,
    *,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> NewRecipe:
    """Write a recipe's text; read the data, and nothing else.

    Args:
        file: where the recipe will stand; its stem is the run's name.
        data: a file or `hub:owner/name`.
        adapters: one or more.
        model: the base model.
        task: a task's name; guessed by default.
        columns: the task's field -> column; guessed where they are not given.

    Raises:
        InputError: data that cannot be read or are too few; no adapter; no task that fits.
    """
    if not adapters:
        raise InputError("at least one adapter is needed", field="--adapter", fix="Give a PEFT folder or hub:owner/name")
    rows = read_rows(data)
    if not rows:
        raise InputError("holds no rows", file=data)
    found = guess(rows, data, task, columns)
    read = examples(mapped(rows, found.columns, data), tasks.create(found.task), data)
    count = len({one.document for one in read})
    sizes = split_sizes(count, data)
    mapping = "".join(f"    {field}: {_quoted(column)}\n" for field, column in found.columns.items())
    names = source_names(adapters)
    text = _TEXT.format(
        schema=SCHEMA,
        file=file,
        name=_quoted(file.stem),
        model=_quoted(model),
        reason=found.reason,
        task=found.task,
        data=_quoted(data),
        columns=f"  columns:\n{mapping}" if mapping else "",
        count=count,
        train=sizes.train,
        micro_dev=sizes.micro_dev,
        dev=sizes.dev,
        test=sizes.test,
        sources="".join(
            f"  - {{name: {_quoted(name)}, adapter: {_quoted(one)}, weight: {1 / len(adapters):.2g}}}\n"
            for name, one in zip(names, adapters, strict=True)
        ),
    )
    return NewRecipe(text, found, count)


def split_sizes(count: int, data: str = "") -> SplitSizes:
    """The default sizes, or smaller ones in about the same proportions where there are fewer examples.

    Raises:
        InputError: too few for four splits.
    """
    usual = SplitSizes()
    wanted = {"train": usual.train or 0, "micro_dev": usual.micro_dev, "dev": usual.dev or 0, "test": usual.test or 0}
    if count < _LEAST:
        raise InputError(f"has {count} different examples, and four splits need {_LEAST}", file=data, fix="Give more rows")
    share = min(1.0, _MARGIN * count / sum(wanted.values()))
    scaled = {name: max(1, int(size * share)) for name, size in wanted.items()}
    return SplitSizes(**scaled)


def source_names(adapters: Sequence[str]) -> list[str]:
    """A name for each adapter: the last part of its path, with a number where two would have one name."""
    names: list[str] = []
    for one in adapters:
        last = one.rstrip("/").partition("@")[0].replace(":", "/").rpartition("/")[2] or "adapter"
        name, number = last, 2
        while name in names:
            name, number = f"{last}-{number}", number + 1
        names.append(name)
    return names


def _quoted(text: str) -> str:
    """A text as YAML and JSON both read it."""
    return json.dumps(text, ensure_ascii=False)
