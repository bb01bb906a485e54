"""A quota for each adapter: what competes for a place is of one adapter, so each loses its own share of entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pomona.pruning.granularity import ModuleMasks, ModuleScores, Scope, select_masks
from pomona.pruning.layer_groups import layer_groups


def select_masks_by_adapter(
    scores: Mapping[str, Mapping[int, ModuleScores]],
    prune_ratio: float | Sequence[float],
    scope: Scope | None = None,
    *,
    all_ties: bool = False,
) -> dict[str, dict[int, ModuleMasks]]:
    """`select_masks` of entries, for each adapter by itself: exactly the count of every factor of every adapter.

    A weight or a scaling multiplies all scores of an adapter's factor alike, so none of them moves a mask, on whichever side it
    stands. With scope `layer` or `global` the entries of one adapter compete over its layer, or over all its modules.

    Args:
        scores: module path -> adapter -> scores of the adapter's own factors; a module need not have every adapter.
        prune_ratio: share of each adapter's entries to prune, in [0, 1]; or a share for each group of neighbouring layers, which
            are groups of all modules.
        scope: which entries compete; None is `tensor`.
        all_ties: see `select_lowest`.

    Returns:
        module path -> adapter -> masks, as the scores are laid out.

    Raises:
        InputError: there are more groups than layers.
        ValueError: a ratio is not in [0, 1], or a score is NaN.
    """
    ratios = prune_ratio if isinstance(prune_ratio, Sequence) else (prune_ratio,)
    found: dict[str, dict[int, ModuleMasks]] = {module: {} for module in scores}
    for modules, ratio in zip(layer_groups(scores, len(ratios)), ratios, strict=True):
        for adapter in sorted({adapter for module in modules for adapter in scores[module]}):
            own = {module: scores[module][adapter] for module in modules if adapter in scores[module]}
            for module, masks in select_masks(own, ratio, "parameter", scope, all_ties=all_ties).items():
                found[module][adapter] = masks
    return found
