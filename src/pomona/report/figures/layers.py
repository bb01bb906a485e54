"""Sparsity and importance by layer and projection, as heat maps with layers on the x axis."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pomona.report.choices import granularity, prunes_to_zero
from pomona.report.figures.style import Figure, finished, plotly_text
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
    return heat_map(
        cells,
        key="sparsity-by-layer",
        title="Sparsity by layer",
        caption=f"Share of exact zeros in each factor A and B.{left_out(record)}",
        hover="%{y}, layer %{x}: %{z:.1%}<extra></extra>",
        limits=(0.0, 1.0),
        bar={"tickformat": ".0%"},
    )


def importance_by_layer(record: RunRecord) -> Figure | None:
    """Mean importance of the entries that were kept, on a logarithmic scale. A module without kept entries is blank."""
    cells = {
        (found.projection, found.layer): math.log10(found.importance) if found.importance > 0 else None
        for found in record.modules
        if found.layer is not None
    }
    return heat_map(
        cells,
        key="importance-by-layer",
        title="Importance by layer",
        caption="Mean importance of the kept entries, as a base-10 logarithm.",
        hover="%{y}, layer %{x}: 10^%{z:.2f}<extra></extra>",
        limits=None,
        bar={},
    )


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


def heat_map(
    cells: Mapping[tuple[str, int], float | None],
    *,
    key: str,
    title: str,
    caption: str,
    hover: str,
    limits: tuple[float, float] | None,
    bar: dict[str, object],
) -> Figure | None:
    """A row for each first key, a column for each layer; None without cells.

    Args:
        cells: (row, layer) -> value; None and missing cells are blank.
        key: of the figure in the page.
        title: of the figure.
        caption: of the figure.
        hover: plotly's template of a cell's text.
        limits: of the color scale; None: those of the values.
        bar: further settings of the color bar.
    """
    import plotly.graph_objects as go

    if not cells:
        return None
    rows = list(dict.fromkeys(row for row, _ in cells))
    layers = sorted({layer for _, layer in cells})
    figure = go.Figure(
        go.Heatmap(
            x=layers,
            y=[plotly_text(row) for row in rows],
            z=[[cells.get((row, layer)) for layer in layers] for row in rows],
            zmin=limits[0] if limits else None,
            zmax=limits[1] if limits else None,
            colorscale="Cividis",
            xgap=1,
            ygap=1,
            hovertemplate=hover,
            hoverongaps=False,
            colorbar={"thickness": 8, "outlinewidth": 0, "len": 1.0, **bar},
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tick0=0, dtick=max(1, len(layers) // 10))
    return finished(figure, key=key, title=title, caption=caption, x="layer", y="", height=80 + max(26 * len(rows), 60))
