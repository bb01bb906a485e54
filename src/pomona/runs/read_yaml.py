"""YAML as people mean it: `no` is the Norwegian language and not false, and neither dates nor times of day are anything but text.

A key that is given twice is refused, and so are aliases that grow into more than a recipe can hold, or that hold themselves.

YAML 1.1, which PyYAML reads, takes yes, no, on and off for true and false, and 12:30 for a number to the base of 60. YAML 1.2 does
not. Where a recipe wants true or false, it takes these words too.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml import MarkedYAMLError

_BOOL, _INT, _FLOAT, _TIMESTAMP = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp"))


LARGEST_BYTES = 2**20
"""Of a recipe; the largest ones have some 20 kB."""
_MOST_VALUES = 20_000  # the largest recipes have about a thousand; PyYAML reads some 20,000 a second


class UnusableYamlError(MarkedYAMLError):
    """YAML that PyYAML would read, and that cannot be meant."""


class _Loader(yaml.SafeLoader):
    """As `yaml.SafeLoader`, with fewer words and numbers."""

    _composed = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML does, and no more of them than a recipe can have."""
        self._composed += 1
        if self._composed > _MOST_VALUES:
            raise UnusableYamlError(problem=f"holds more than {_MOST_VALUES:,} values", problem_mark=self.get_mark())
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As PyYAML does, and without a key twice, of which the last would be taken in silence."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise UnusableYamlError(problem=f"the key {key.value[:40]!r} is given twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else ("", ""))
        return node

    def get_single_node(self) -> Any:
        """As PyYAML does, and no larger with its aliases written out than a recipe can be."""
        node = super().get_single_node()
        if node is not None:
            _values_of(node, {})
        return node


def _values_of(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node holds, each alias counted as all that it stands for."""
    if id(node) in known:
        if not known[id(node)]:
            raise UnusableYamlError(problem="an alias stands within what it names", problem_mark=node.start_mark)
        return known[id(node)]
    known[id(node)] = 0  # not known yet: whoever meets it again is within it
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [one for pair in node.value for one in pair]
    count = 1 + sum(_values_of(one, known) for one in inner)
    if count > _MOST_VALUES:
        problem = f"holds more than {_MOST_VALUES:,} values, once its aliases are written out"
        raise UnusableYamlError(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = count
    return count


# What the loader has of its own is a copy: PyYAML's own loader stays as it is.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in (_BOOL, _INT, _FLOAT, _TIMESTAMP)]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    (_BOOL, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_INT, r"[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+", "-+0123456789"),
    (
        _FLOAT,
        r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def read_yaml(text: str) -> Any:
    """What a YAML text holds.

    Raises:
        yaml.YAMLError: it is not YAML; or `UnusableYamlError`: a key is there twice, or it holds more values than any recipe.
        ValueError, RecursionError: of PyYAML's own; or it is longer than `LARGEST_BYTES`.
    """
    if len(text) > LARGEST_BYTES:
        raise ValueError(f"it has {len(text):,} characters, and {LARGEST_BYTES:,} at most are read")
    return yaml.load(text, _Loader)
