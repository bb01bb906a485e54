"""How a recipe's values are written in YAML and read from it: components by name, merge weights, paths."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter

from pomona.control import Controller, Search, controllers
from pomona.data.tasks import Task, tasks
from pomona.errors import InputError, suggest
from pomona.evaluation.evaluate import LOSS
from pomona.importance import ImportanceMetric, importance_metrics
from pomona.metrics import metrics
from pomona.registry import Registry


def _decode(registry: Registry[Any]) -> BeforeValidator:
    """`name`, or `{name: ..., parameter: value}` -> the component."""

    def decode(value: object) -> object:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        parameters = dict(value)
        name = parameters.pop("name", None)
        if not isinstance(name, str):
            raise InputError(f"the {registry.kind} needs a name", value=dict(value), mend=f"Known: {', '.join(registry)}")
        known = registry.parameters(name)
        for key in parameters:
            if key not in known:
                raise InputError(f"{registry.kind} {name!r} has no parameter {key!r}", mend=suggest(str(key), known))
        return TypeAdapter(registry[name]).validate_python(parameters)

    return BeforeValidator(decode)


def _encode(registry: Registry[Any]) -> PlainSerializer:
    """The inverse of `_decode`, with every parameter spelt out."""

    def encode(component: Any) -> dict[str, object] | None:
        if component is None:
            return None
        name = next(name for name in registry if registry[name] is type(component))
        return {"name": name, **dataclasses.asdict(component)}

    return PlainSerializer(encode)


TaskField = Annotated[Task, _decode(tasks), _encode(tasks)]
ControllerField = Annotated[Controller | Search, _decode(controllers), _encode(controllers)]
MetricField = Annotated[ImportanceMetric, _decode(importance_metrics), _encode(importance_metrics)]
OptionalMetricField = Annotated[ImportanceMetric | None, _decode(importance_metrics), _encode(importance_metrics)]


def _numbers(value: object) -> object:
    """Numbers as floats wherever they stand; YAML 1.1 takes `1e-3` for text. `check_weight` says what else is wrong."""
    if isinstance(value, list | tuple):
        return [_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: one if key == "filter" else _numbers(one) for key, one in value.items()}
    try:
        return float(value) if isinstance(value, int | str) and not isinstance(value, bool) else value
    except (ValueError, OverflowError):
        return value


WeightField = Annotated[float | list[float] | list[dict[str, Any]], PlainValidator(_numbers)]


def _reward(value: object) -> dict[str, float]:
    """`name`, or `{name: weight, ...}` -> the weights that are not 0, by name."""
    given = {value: 1.0} if isinstance(value, str) else _numbers(value)
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
        raise InputError("no such metric", field=field, value=name, mend=suggest(str(name), (LOSS, *metrics)))


RewardField = Annotated[dict[str, float], BeforeValidator(_reward)]


DataSource = Annotated[str, BeforeValidator(lambda source: str(source) if isinstance(source, Path) else source)]
