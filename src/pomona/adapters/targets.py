"""The modules that PEFT adapts by a config's `target_modules` and related fields.

PEFT attaches factors to the modules of the config, not of the file: it ignores other tensors without an error.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pomona.adapters.names import older_spelling
from pomona.patterns import Expressions

ALL_LINEAR = "all-linear"
HEAD = "lm_head"
"""The last part of the path of an output head, which `all-linear` leaves out."""

_ANY_LAYER = r".*?\.[^.]*\.(?P<layer>\d+)\."


@dataclass(frozen=True)
class Targets:
    """The modules to which PEFT attaches factors (peft 0.21, `check_target_module_exists`).

    Args:
        modules: paths or their last parts; or one regular expression for whole paths, or `all-linear`; None: PEFT's table
            for the model, which is unknown here.
        exclude: the same, for modules that are always excluded.
        layers: numbers of the layers; None: all. A module with its full path in `modules` is adapted in any layer.
        layer_patterns: the path parts before a layer's number (`layers`, `h`), as regular expressions; empty: the first number
            after two parts of the path.
    """

    modules: Collection[str] | str | None = None
    exclude: Collection[str] | str = ()
    layers: Collection[int] | None = None
    layer_patterns: tuple[str, ...] = ()

    def prepare(self, modules: Iterable[str]) -> None:
        """Match the expressions of all fields with many modules at once; `leaves_out` is then quick.

        Raises:
            InputError: an expression takes too long.
        """
        known = list(modules)
        for expressions in (self._wanted, self._excluded, self._layers if self.layers is not None else None):
            if expressions is not None:
                expressions.prepare(known)

    def leaves_out(self, module: str, *, embedding: bool = False) -> str | None:
        """The config's field that makes PEFT ignore this module; None if PEFT adapts it.

        Args:
            module: path in the model.
            embedding: whether it is an embedding, which `all-linear` excludes.
        """
        if self.exclude and _matches(self.exclude, self._excluded, module):
            return "exclude_modules"
        if self.modules is None:
            return None
        if isinstance(self.modules, str) and self.modules.lower() == ALL_LINEAR:
            return "target_modules" if embedding or module.rpartition(".")[2] == HEAD else None
        if not _matches(self.modules, self._wanted, module):
            return "target_modules"
        named = isinstance(self.modules, str) or module in self.modules
        if self.layers is None or named or self._layers.layer(module) in self.layers:
            return None
        return "layers_to_transform"

    def without(self, modules: Collection[str]) -> list[str]:
        """The entries of a list `target_modules` that match none of these modules."""
        if self.modules is None or isinstance(self.modules, str):
            return []
        ends = {end for module in modules for name in (module, older_spelling(module) or module) for end in _ends(name)}
        return sorted(set(self.modules) - ends)

    @functools.cached_property
    def _wanted(self) -> Expressions | None:
        return _expression(self.modules, "target_modules")

    @functools.cached_property
    def _excluded(self) -> Expressions | None:
        return _expression(self.exclude, "exclude_modules")

    @functools.cached_property
    def _layers(self) -> Expressions:
        patterns = [rf"(?:^|.*?\.){pattern}\.(?P<layer>\d+)\." for pattern in self.layer_patterns] or [_ANY_LAYER]
        return Expressions(patterns, "layers_pattern")


def _expression(wanted: Collection[str] | str | None, field: str) -> Expressions | None:
    is_one = isinstance(wanted, str) and wanted.lower() != ALL_LINEAR
    return Expressions([wanted], field, full=True) if is_one and isinstance(wanted, str) and wanted else None


def _matches(wanted: Collection[str] | str, expression: Expressions | None, module: str) -> bool:
    if expression is not None:
        return expression.first(module) is not None
    return not isinstance(wanted, str) and any(end in wanted for end in _ends(module))


def _ends(module: str) -> list[str]:
    """The path and its suffixes: `a.b.c`, `b.c`, `c`."""
    parts = module.split(".")
    return [".".join(parts[place:]) for place in range(len(parts))]
