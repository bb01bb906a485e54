"""The modules that PEFT adapts by a config's `target_modules` and related fields.

PEFT attaches factors to the modules of the config, not of the file: it ignores other tensors without an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from pomona.adapters.names import older_spelling

ALL_LINEAR = "all-linear"
HEAD = "lm_head"
"""The last part of the path of an output head, which `all-linear` leaves out."""

_ANY_LAYER = re.compile(r".*?\.[^.]*\.(?P<layer>\d+)\.")


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

    def leaves_out(self, module: str, *, embedding: bool = False) -> str | None:
        """The config's field that makes PEFT ignore this module; None if PEFT adapts it.

        Args:
            module: path in the model.
            embedding: whether it is an embedding, which `all-linear` excludes.
        """
        if self.exclude and _matches(self.exclude, module):
            return "exclude_modules"
        if self.modules is None:
            return None
        if isinstance(self.modules, str) and self.modules.lower() == ALL_LINEAR:
            return "target_modules" if embedding or module.rpartition(".")[2] == HEAD else None
        if not _matches(self.modules, module):
            return "target_modules"
        named = isinstance(self.modules, str) or module in self.modules
        if self.layers is None or named or self._layer(module) in self.layers:
            return None
        return "layers_to_transform"

    def without(self, modules: Collection[str]) -> list[str]:
        """The entries of a list `target_modules` that match none of these modules."""
        if self.modules is None or isinstance(self.modules, str):
            return []
        ends = {end for module in modules for name in (module, older_spelling(module) or module) for end in _ends(name)}
        return sorted(set(self.modules) - ends)

    def _layer(self, module: str) -> int | None:
        patterns = [rf"(?:^|.*?\.){pattern}\.(?P<layer>\d+)\." for pattern in self.layer_patterns] or [_ANY_LAYER]
        match = next((match for pattern in patterns if (match := re.match(pattern, module))), None)
        return int(match["layer"]) if match else None


def _matches(wanted: Collection[str] | str, module: str) -> bool:
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(end in wanted for end in _ends(module))


def _ends(module: str) -> list[str]:
    """The path and its suffixes: `a.b.c`, `b.c`, `c`."""
    parts = module.split(".")
    return [".".join(parts[place:]) for place in range(len(parts))]
