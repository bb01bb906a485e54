"""How a recipe's values are written in YAML and read from it: components by name, merge weights, paths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator

from pomona.components import ComponentSchema, decoded, encoded
from pomona.control import Controller, Search, controllers
from pomona.data.tasks import Task, tasks
from pomona.errors import InputError, suggest
from pomona.evaluation.scores import LOSS
from pomona.importance import ImportanceMetric, importance_metrics
from pomona.merging import WeightRule
from pomona.metrics import metrics
from pomona.plain_text import is_plain
from pomona.runs.trackers import TrackerName

TaskField = Annotated[Task, decoded(tasks), encoded(tasks), ComponentSchema(tasks)]
ControllerField = Annotated[Controller | Search, decoded(controllers), encoded(controllers), ComponentSchema(controllers)]
ImportanceField = Annotated[
    ImportanceMetric | None,
    decoded(importance_metrics),
    encoded(importance_metrics),
    ComponentSchema(importance_metrics, optional=True),
]


_LONGEST_PART = 200  # bytes; file systems allow 255, and names of files are made of it


def _plain_name(name: str) -> str:
    if not name.strip() or not is_plain(name) or len(name.encode()) > _LONGEST_PART:
        raise ValueError(f"a name has letters on one line, up to {_LONGEST_PART} bytes, and nothing that acts on a terminal")
    return name


def _run_name(name: str) -> str:
    parts = name.split("/")
    if any(part in {"", ".", ".."} or "\\" in part or part.startswith("~") or part != part.strip() for part in parts):
        raise ValueError("it names a folder in runs/ or adapters/, and never one outside: leave out `..`, `~` and a `/` at an end")
    for part in parts:
        _plain_name(part)
    return name


PlainName = Annotated[str, AfterValidator(_plain_name)]
"""A name in tables, records and on terminals."""
RunName = Annotated[str, AfterValidator(_run_name)]
"""A name that a folder gets: of a run, or `experiment/system-seed`."""


def numbers(value: object) -> object:
    """Numbers as floats wherever they stand; YAML 1.1 takes `1e-3` for text. `check_weight` says what else is wrong."""
    if isinstance(value, list | tuple):
        return [numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: one if key == "filter" else numbers(one) for key, one in value.items()}
    try:
        return float(value) if isinstance(value, int | str) and not isinstance(value, bool) else value
    except (ValueError, OverflowError):
        return value


def _rule(value: object) -> object:
    """Options and YAML may read the rule's name `nan` as a number."""
    return "nan" if isinstance(value, float) and math.isnan(value) else value


WeightRuleField = Annotated[WeightRule | None, BeforeValidator(_rule)]
_Weight = float | list[float] | list[dict[str, Any]]
WeightField = Annotated[_Weight, PlainValidator(numbers, json_schema_input_type=_Weight)]


def _reward(value: object) -> dict[str, float]:
    """`name`, or `{name: weight, ...}` -> the weights that are not 0, by name."""
    given = {value: 1.0} if isinstance(value, str) else numbers(value)
    if not isinstance(given, dict):
        raise InputError("must be `loss`, a metric's name, or weights by such names", field="reward", value=value)
    for name, weight in given.items():
        check_judge(name, "reward")
        if isinstance(weight, bool) or not isinstance(weight, float) or not 0 <= weight < math.inf:
            raise InputError("must be a finite number of at least 0", field=f"reward.{name}", value=weight)
    if not any(given.values()):
        raise InputError("has no weight above 0, so nothing would be rewarded", field="reward", value=value)
    return {name: weight for name, weight in given.items() if weight > 0}


def check_judge(name: object, field: str) -> None:
    """Refuse what is neither `loss` nor a metric.

    Raises:
        InputError: it is neither.
    """
    if name != LOSS and name not in metrics:
        raise InputError("no such metric", field=field, value=name, fix=suggest(str(name), (LOSS, *metrics)))


RewardField = Annotated[dict[str, float], BeforeValidator(_reward, json_schema_input_type=str | dict[str, float])]


def _sources(value: object) -> object:
    """A path as text, a list of paths as texts."""
    given = value if isinstance(value, list | tuple) else [value]
    if not given or not all(isinstance(one, str | Path) for one in given):
        raise ValueError("a file, a data set of the hub, or a list of these is expected")
    return tuple(map(str, given)) if isinstance(value, list | tuple) else str(value)


def _names(value: object) -> object:
    return [value] if isinstance(value, str) else value


TrackersField = Annotated[
    tuple[TrackerName, ...], BeforeValidator(_names, json_schema_input_type=TrackerName | tuple[TrackerName, ...])
]

DataSource = Annotated[str | tuple[str, ...], BeforeValidator(_sources, json_schema_input_type=str | list[str])]
"""One source of rows, or several that make one pool."""
