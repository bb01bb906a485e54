"""Sparsity and importance by layer and projection, as heat maps with layers on the x axis."""

from __future__ import annotations

import math

from pomona.report.choices import granularity, prunes_to_zero
from pomona.report.figures.heat import HeatMap
from pomona.report.figures.style import Figure
from pomona.report.wording import percent
from pomona.runs.record import RunRecord

_EVEN = 0.005
_WHOLE = {"rank": "components", "module": "modules", "source_rank": "components", "source_layer": "components"}


def sparsity_by_layer(record: RunRecord) -> Figure | None:
    """Share of exact zeros of each factor. None if no module is in a layer, or if `even_sparsity` gives a sentence instead."""
    if even_sparsity(record) is not None:
        return None
    cells = {
        (f"{found.projection} {factor}", found.layer): share
        for found in record.modules
        if found.layer is not None
        for factor, share in (("A", found.sparsity_A), ("B", found.sparsity_B))
    }
    if not cells:
        return None
    caption = f"Share of exact zeros in each factor A and B.{left_out(record)}"
    return Figure("sparsity-by-layer", "Sparsity by layer", caption, HeatMap(cells, limits=(0.0, 1.0), share=True))


def importance_by_layer(record: RunRecord) -> Figure | None:
    """Mean importance of the entries that were kept, on a logarithmic scale. A module without kept entries is blank."""
    cells = {
        (found.projection, found.layer): math.log10(found.importance) if found.importance > 0 else None
        for found in record.modules
        if found.layer is not None
    }
    if not cells:
        return None
    caption = "Mean importance of the kept entries, as a base-10 logarithm."
    return Figure("importance-by-layer", "Importance by layer", caption, HeatMap(cells))


def even_sparsity(record: RunRecord) -> str | None:
    """A sentence instead of the heat map if every factor has the same sparsity; None if they differ."""
    shares = [share for found in record.modules for share in (found.sparsity_A, found.sparsity_B)]
    if shares and not prunes_to_zero(record):
        return "Pruned entries were reset to their start values, so they are not zero, and sparsity does not count them."
    if not shares or max(shares) - min(shares) > _EVEN:
        return None
    modules, share = len(record.modules), percent(shares[0])
    return f"Sparsity is the same in every layer: each factor of the {modules} modules is {share} zeros.{left_out(record)}"


def left_out(record: RunRecord) -> str:
    """A sentence on the removal of components or modules that are all zero; empty if single entries were pruned."""
    whole = _WHOLE.get(granularity(record))
    return f" It is measured before {whole} that are all zero are removed from the adapter." if whole else ""
