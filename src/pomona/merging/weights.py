"""Merge weights by adapter, by depth and by pattern, in mergekit's syntax.

One adapter's weight is a number; a list of numbers over the depth of the model; or a list of entries `{filter, value}`:

    1.0
    [0.2, 1.0, 0.2]
    [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"filter": "mlp", "value": 0.3}, {"value": 1.0}]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from pomona.adapters.model_order import layer_number
from pomona.errors import InputError, suggest

Weight: TypeAlias = float | Sequence[float] | Sequence[Mapping[str, object]]
"""One adapter's weight, as a user gives it."""

LARGEST_WEIGHT = 1e12
"""Of either sign."""

_ENTRY_KEYS = ("filter", "value")
_EVERY_MODULE = "*"
# What the models' embeddings of tokens and positions are called; any other module without a layer number (`lm_head`, `score`,
# GPT-NeoX's `embed_out`) stands behind the layers.
_BEFORE_LAYERS = frozenset(
    ("embed_in", "embed_positions", "embed_tokens", "position_embeddings", "tok_embeddings", "word_embeddings", "wpe", "wte")
)


class Rule(NamedTuple):
    """A weight for the modules whose path contains `pattern` (`*`: for every module): `values` over the depth, at least one."""

    pattern: str
    values: tuple[float, ...]


def check_weight(spec: object, place: str) -> tuple[Rule, ...]:
    """Check one adapter's weight without knowing the modules.

    Args:
        spec: a finite number, a list of finite numbers, or a list of entries: `value`, a number or a list of numbers, and
            `filter`, a substring of a module's path (`layers.1` also matches `layers.10`); without it, or with `*`, the entry
            applies to every module.
        place: its name in messages: `weights[1]`.

    Returns:
        The entries in their order; a number or a list of numbers becomes one entry for every module.

    Raises:
        InputError: any other value; the message names the place within `spec`.
    """
    parts = _as_list(spec) or ()
    entries = [part for part in parts if isinstance(part, Mapping)]
    if not entries:
        return (Rule(_EVERY_MODULE, _values(spec, place)),)
    if len(entries) < len(parts):
        raise InputError("mixes numbers and entries", field=place, value=spec, fix="Give each number as an entry's value")
    return tuple(_rule(entry, f"{place}[{at}]") for at, entry in enumerate(entries))


def module_weights(specs: Sequence[Weight], modules: Sequence[str]) -> dict[str, list[float]]:
    """Every adapter's weight in every module.

    The first entry that matches a module's path is its weight. A list of n values is interpolated linearly: layer l of L layers
    gets the value at position `l (n - 1) / (L - 1)`, so the ends of the list are the first and the last layer. The layer is the
    first whole number among the parts of the path, and `L = 1 + the highest layer among modules`. As in mergekit, embeddings
    get the first value, other modules outside the layers (`lm_head`) the last one, and so does the only layer of a model.

    Args:
        specs: one for each adapter.
        modules: the paths of all modules that are merged.

    Returns:
        module -> one number for each adapter.

    Raises:
        InputError: a weight that `check_weight` refuses, or a module that no entry matches (mergekit would go on to an outer
            setting or a default; there is none here).
    """
    rules = [check_weight(spec, f"weights[{place}]") for place, spec in enumerate(specs)]
    layers = {module: layer_number(module) for module in modules}
    last = max((layer for layer in layers.values() if layer is not None), default=0)
    return {
        module: [_weight(one, f"weights[{place}]", module, _depth(module, layers[module], last)) for place, one in enumerate(rules)]
        for module in modules
    }


def _as_list(value: object) -> Sequence[object] | None:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else None


def _rule(entry: Mapping[object, object], place: str) -> Rule:
    for key in entry:
        if key not in _ENTRY_KEYS:
            raise InputError("no such key", field=place, value=key, fix=suggest(str(key), _ENTRY_KEYS))
    pattern = entry.get("filter")
    if pattern is None:
        pattern = _EVERY_MODULE
    if not isinstance(pattern, str) or not pattern:
        raise InputError("must be a part of a module's path, or *", field=f"{place}.filter", value=pattern)
    if "value" not in entry:
        raise InputError("has no value", field=place, value=dict(entry), fix="Add value, a number or a list of numbers")
    return Rule(pattern, _values(entry["value"], f"{place}.value"))


def _values(value: object, place: str) -> tuple[float, ...]:
    numbers = _as_list(value)
    if numbers is None:
        return (_number(value, place),)
    if not numbers:
        raise InputError("is an empty list", field=place, fix="Give a number, or a list of them over the model's depth")
    return tuple(_number(part, f"{place}[{at}]") for at, part in enumerate(numbers))


def _number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("must be a number", field=place, value=value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError("must be a finite number", field=place, value=value)
    if abs(number) > LARGEST_WEIGHT:
        problem = f"must be at most {LARGEST_WEIGHT:,.0f}: an adapter's update is multiplied by it"
        raise InputError(problem, field=place, value=value)
    return number


def _depth(module: str, layer: int | None, last: int) -> tuple[int, int]:
    """Relative depth as a fraction, so that the last layer's is exactly 1: (numerator, denominator)."""
    if layer is None:
        return (0, 1) if module.rsplit(".", 1)[-1] in _BEFORE_LAYERS else (1, 1)
    return (layer, last) if last > 0 else (1, 1)


def _weight(rules: Sequence[Rule], place: str, module: str, depth: tuple[int, int]) -> float:
    values = next((rule.values for rule in rules if rule.pattern == _EVERY_MODULE or rule.pattern in module), None)
    if values is None:
        fix = "Add an entry without a filter for the rest"
        raise InputError("no entry's filter matches a module", field=place, value=module, fix=fix)
    whole, rest = divmod(depth[0] * (len(values) - 1), depth[1])
    if rest == 0 or values[whole] == values[whole + 1]:
        return values[whole]
    share = rest / depth[1]
    return (1 - share) * values[whole] + share * values[whole + 1]
