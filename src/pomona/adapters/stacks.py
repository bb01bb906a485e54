"""Finds the factors of bare parameters in a PEFT file and their numbers of experts, from the config and the shapes alone.

Axes: E experts, R rank of one expert, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pomona.adapters.config import CONFIG_FILE, LoraConfig
from pomona.adapters.experts import ORDER, WRAPPED, Expert, is_linear_or_router
from pomona.errors import InputError

_FIELD = "target_parameters"


class InFile(NamedTuple):
    """A pair of the file: its module's path for the config's patterns, and the shapes of A and B."""

    trained_as: str
    A: tuple[int, ...]
    B: tuple[int, ...]


@dataclass(frozen=True)
class Stack:
    """The stacked pairs of one parameter.

    Args:
        parameter: its path.
        trained_as: the path for the config's patterns.
        total: E.
    """

    parameter: str
    trained_as: str
    total: int

    def entries(self) -> list[str]:
        """The adapter's entries: one per expert, or a module's entry for a router or a linear module adapted by its weight."""
        module = self.parameter.removesuffix(".weight")
        if self.total == 1 and module != self.parameter and is_linear_or_router(module):
            return [module]
        return [Expert(self.parameter, number, self.total).path for number in range(self.total)]


def find_stacks(pairs: Mapping[str, InFile], config: LoraConfig, file: Path) -> dict[str, Stack]:
    """Find the stacked pairs of a file.

    Args:
        pairs: module in the key (`...experts.base_layer`) -> the pair.
        config: the adapter's config.
        file: the file of the tensors, for messages.

    Returns:
        Key's module -> its stack, without the modules of `target_modules`.

    Raises:
        InputError: the parameter of a pair is ambiguous, or a pair is not of complete experts.
    """
    if not config.target_parameters:
        return {}
    depths: dict[str, list[int]] = {}
    for key_module in pairs:
        module, depth = _unwrapped(key_module)
        depths.setdefault(module, []).append(depth)
    found: dict[str, Stack] = {}
    for module, wrappers in depths.items():
        names = targeted(module, config, len(wrappers))
        if not names and wrappers == [0]:
            continue
        _check_names(module, names, wrappers, file)
        for depth, name in enumerate(reversed(names)):
            key_module = module + WRAPPED * depth
            found[key_module] = _stack(module, name, pairs[key_module], config, file)
        both = [(pairs[key].B[0], pairs[key].A[1]) for key in (module + WRAPPED * depth for depth in range(len(names)))]
        if contradicts(names[::-1], both):
            problem = "gate_up_proj and down_proj have each other's shapes, so the model makes its parameters in another order"
            raise InputError(problem, file=file, field=module, fix="Adapt one of the two only")
    return found


def targeted(module: str, config: LoraConfig, wrappers: int) -> list[str]:
    """The parameters of a module in `target_parameters`, in the order of the wrappers from the innermost, if it is known.

    In PEFT an entry matches the parameter's path or its last parts. So `down_proj` or `weight` could belong to any module: names
    of experts' parameters are assigned to modules named as experts, and other names to other modules, unless this leaves too few
    for the wrappers of a module that is not in `target_modules`.
    """
    named: dict[str, bool] = {}
    for target in config.target_parameters:
        owner, _, name = target.rpartition(".")
        if not owner or module == owner or module.endswith(f".{owner}"):
            named[name] = named.get(name, False) or bool(owner)
    of_experts = module.endswith("experts")
    fitting = {name for name, owned in named.items() if owned or (name in ORDER) == of_experts}
    if len(fitting) != wrappers and (fitting or config.targets.leaves_out(module) is not None):
        fitting = set(named)
    return sorted(fitting, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def contradicts(names: Sequence[str], shapes: Sequence[tuple[int, int]]) -> bool:
    """Whether the shapes of `gate_up_proj` and `down_proj` are swapped: {H, 2 F} and {H, F}, in any order of O and I.

    Args:
        names: names of the parameters of one module.
        shapes: (O, I) of each parameter.
    """
    by_name = dict(zip(names, shapes, strict=True))
    if not {"gate_up_proj", "down_proj"} <= set(names):
        return False
    fused, down = by_name["gate_up_proj"], by_name["down_proj"]
    return _fits(down, fused) and not _fits(fused, down)


def _fits(fused: tuple[int, int], down: tuple[int, int]) -> bool:
    return any(fused[side] == 2 * down[1 - side] and fused[1 - side] == down[side] for side in (0, 1))


def _unwrapped(key_module: str) -> tuple[str, int]:
    module, depth = key_module, 0
    while module.endswith(WRAPPED):
        module, depth = module.removesuffix(WRAPPED), depth + 1
    return module, depth


def _check_names(module: str, names: Sequence[str], wrappers: Sequence[int], file: Path) -> None:
    if sorted(wrappers) != list(range(len(names))):
        problem = (
            f"has factors of {len(wrappers)} parameters of {module}, but {CONFIG_FILE} names {', '.join(names) or 'none of them'}"
        )
        raise InputError(problem, file=file, field=_FIELD, fix=f"Correct {_FIELD}: name the adapted parameters, and no others")
    if len(names) > 1 and not set(names) <= set(ORDER):
        problem = (
            f"whose factors are whose depends on the model's code: {module} has several adapted parameters, {', '.join(names)}"
        )
        raise InputError(problem, file=file, field=_FIELD, fix="Train it with one parameter of a module")


def _stack(module: str, name: str, pair: InFile, config: LoraConfig, file: Path) -> Stack:
    trained_as = f"{_unwrapped(pair.trained_as)[0]}.{name}"
    rows, rank = pair.A[0], config.rank(trained_as)
    if rows % rank:
        problem = f"has {rows} rows in lora_A, which are not those of whole experts: {CONFIG_FILE} says rank {rank} for each"
        raise InputError(problem, file=file, field=f"{module}.{name}", fix="Correct r or rank_pattern in the config")
    return Stack(f"{module}.{name}", trained_as, rows // rank)
