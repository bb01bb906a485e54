"""Groups of neighbouring layers: what a prune ratio of its own may be given to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pomona.adapters.order import layer_number
from pomona.errors import InputError


def layer_groups(modules: Iterable[str], groups: int) -> list[list[str]]:
    """The modules in so many groups of neighbouring layers, from the first to the last.

    The numbers of layers differ by at most 1, the earlier groups have the more. A module that is in no layer, such as the head,
    belongs to the last group.

    Args:
        modules: paths; in each group they keep their order.
        groups: how many, >= 1.

    Raises:
        InputError: there are fewer layers than groups.
        ValueError: there is no group.
    """
    if groups < 1:
        raise ValueError(f"groups must be >= 1, got {groups!r}")
    number = {module: layer_number(module) for module in modules}
    layers = sorted({layer for layer in number.values() if layer is not None})
    if groups > max(1, len(layers)):
        problem = f"cannot have ratios for {groups} groups of layers: the adapters are on {len(layers)} layers"
        raise InputError(problem, field="controller", mend="Take fewer groups")
    least, more = divmod(len(layers), groups)
    sizes = [least + (group < more) for group in range(groups)]
    of_layer = dict(zip(layers, (group for group, size in enumerate(sizes) for _ in range(size)), strict=True))
    found: list[list[str]] = [[] for _ in range(groups)]
    for module, layer in number.items():
        found[groups - 1 if layer is None else of_layer[layer]].append(module)
    return found


def group_shares(entries: Mapping[str, int], groups: int) -> tuple[float, ...]:
    """Each group's share of all entries; the prune ratio over all is the mean of the groups' ratios by these shares.

    Args:
        entries: module path -> how many entries its merged factors have.
        groups: how many, as for `layer_groups`.

    Raises:
        InputError: there are fewer layers than groups.
    """
    total = sum(entries.values())
    return tuple(sum(entries[module] for module in group) / total for group in layer_groups(entries, groups))
