"""Reading a recipe: YAML and overrides in, a checked recipe out, and whatever is wrong said in one line with its key."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pomona.control import controllers
from pomona.data.tasks import tasks
from pomona.errors import InputError, PomonaError, suggest
from pomona.evaluation.scores import LOSS
from pomona.importance import importance_metrics
from pomona.plain_files import open_plain
from pomona.registry import Registry
from pomona.runs.ranges import check_numbers, check_texts
from pomona.runs.read_yaml import LARGEST_BYTES, UnusableYamlError, read_yaml
from pomona.stand_ins import refuse_pointer

R = TypeVar("R", bound=BaseModel)

_UNION_PARTS = ("float", "tuple[float, ...]")
"""What stands in the place of an error for the kinds that a ratio may be of; no key of a recipe."""


def read_recipe(path: Path | str, kind: type[R], overrides: Sequence[str] = ()) -> R:
    """Read and check a YAML recipe.

    Args:
        path: the file.
        kind: `Recipe` or `TrainRecipe`.
        overrides: `key.key=value`, the value as YAML; a number in the key counts into a list.

    Raises:
        InputError: no such file, not YAML, an unknown key (the nearest known one is named), a value that does not fit.
    """
    path = Path(path)
    try:
        with open_plain(path) as file:
            text = file.read(LARGEST_BYTES + 1).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"the recipe cannot be read: {reason}", file=path, fix="Give a YAML file in UTF-8") from error
    refuse_pointer(path, text[:64].encode())
    try:
        content = read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: `0b_`, a number without digits
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", error)
        if isinstance(error, UnusableYamlError):
            raise InputError(f"the recipe {problem}" if str(problem).startswith("holds") else str(problem), file=place) from error
        raise InputError(f"not YAML: {problem}", file=place, fix="Correct the recipe's syntax") from error
    return parse_recipe(content, kind, overrides, path)


def parse_recipe(content: object, kind: type[R], overrides: Sequence[str] = (), file: Path | str | None = None) -> R:
    """As `read_recipe`, from what the YAML held; `file` is for messages."""
    if not isinstance(content, dict):
        raise InputError("a recipe is a mapping of keys to values", file=file, value=content)
    for override in overrides:
        _override(content, override, kind)
    check_texts(content, file)
    try:
        read = kind.model_validate(content)
        check_numbers(content, read, None)
        return read
    except ValidationError as error:
        raise _explain(error, kind, file) from error
    except PomonaError as error:
        raise InputError(str(error), file=file) from error


def _override(content: dict[str, Any], override: str, kind: type[BaseModel]) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError("an override is key=value", field="--set", value=override, fix="Write for example tuning.epochs=2")
    *path, last = key.split(".")
    place: Any = content
    for part in path:
        if isinstance(place, list):
            place = place[_position(place, part, override)]
            if not isinstance(place, dict | list):
                raise InputError(f"{part!r} counts to a value, which has no keys", field="--set", value=override)
            continue
        if not isinstance(place.get(part), dict | list):
            name = place[part] if isinstance(place.get(part), str) else _default_name(kind, part) if place is content else None
            if part == "reward" and place is content:  # a plain name stands for its weight, not for a component
                place[part] = {name or LOSS: 1.0}
            else:
                place[part] = {} if name is None else {"name": name}
        place = place[part]
    try:
        parsed = read_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError("the value is not YAML", field="--set", value=override) from error
    if isinstance(place, list):
        place[_position(place, last, override)] = parsed
    else:
        place[last] = parsed


def _default_name(kind: type[BaseModel], key: str) -> str | None:
    """The name of the component that stands at a key by default: `task.language=fr` changes the default task."""
    default = kind.model_fields[key].default if key in kind.model_fields else None
    registries: tuple[Registry[Any], ...] = (tasks, controllers, importance_metrics)
    return next((name for registry in registries for name in registry if registry[name] is type(default)), None)


def _position(place: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise InputError(f"{part!r} counts into a list of {len(place)}", field="--set", value=override, fix="Count from 0")
    return int(part)


def _first(error: ValidationError) -> Any:
    """The first error; where a value may be of several kinds, that of the kind that it fits best: the one that looked deepest."""
    first, *others = error.errors()
    if first["loc"][-1:] and first["loc"][-1] in _UNION_PARTS:
        same = [one for one in others if one["loc"][: len(first["loc"]) - 1] == first["loc"][:-1]]
        return max([first, *same], key=lambda one: len(one["loc"]))
    return first


def _explain(error: ValidationError, kind: type[BaseModel], file: Path | str | None) -> InputError:
    """The first thing that is wrong, in one line."""
    first = _first(error)
    location = tuple(part for part in first["loc"] if part not in _UNION_PARTS)
    field = ".".join(map(str, location)) or None
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = _known_keys(kind, location[:-1])
        return InputError("unknown key", file=file, field=field, fix=suggest(str(location[-1]), known))
    if first["type"] == "missing":
        return InputError("is missing", file=file, field=field, fix="Add it to the recipe")
    problem = first["msg"].removeprefix("Value error, ")
    given = first["input"] if not isinstance(first["input"], dict | list | tuple) else ...
    quotes = "Write it in quotes" if first["type"] == "string_type" and isinstance(given, bool | int | float) else None
    return InputError(problem[:1].lower() + problem[1:], file=file, field=field, value=given, fix=quotes)


def _known_keys(kind: Any, location: Sequence[str | int]) -> list[str]:
    """The keys that are known at a place in a recipe."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = kind.model_fields[part].annotation if hasattr(kind, "model_fields") else None
        kind = _section_of(annotation)
    if hasattr(kind, "model_fields"):
        return list(kind.model_fields)
    return [one.name for one in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _section_of(annotation: Any) -> Any:
    """The section's class inside `X | None`, `tuple[X, ...]`."""
    if isinstance(annotation, type) and (hasattr(annotation, "model_fields") or dataclasses.is_dataclass(annotation)):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_of(part)) is not None), None)
