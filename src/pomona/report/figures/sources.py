"""Which merged adapter was kept in which layer, as a heat map with layers on the x axis."""

from __future__ import annotations

from statistics import fmean

from pomona.report.choices import chosen
from pomona.report.figures.layers import heat_map, left_out
from pomona.report.figures.style import Figure
from pomona.runs.record import RunRecord


def kept_by_source(record: RunRecord) -> Figure | None:
    """Share of the components of each source that were kept in a layer, over its modules there. None without such shares.

    A source without components of its own in a layer, or with none that are trained, is blank there.
    """
    shares: dict[tuple[str, int], list[float]] = {}
    names = [source.name for source in record.sources] + (["target LoRA"] if chosen(record, "merge.target") else [])
    for found in record.modules:
        for name, share in zip(names, found.kept_by_source or (), strict=False):
            if share is not None and found.layer is not None:
                shares.setdefault((name, found.layer), []).append(share)
    rows = sorted(shares, key=lambda cell: (names.index(cell[0]), cell[1]))
    return heat_map(
        {cell: fmean(shares[cell]) for cell in rows},
        key="kept-by-source",
        title="What was kept of each source",
        caption=f"Share of each source's rank-one components that were kept, by layer.{left_out(record)}",
        hover="%{y}, layer %{x}: %{z:.1%}<extra></extra>",
        limits=(0.0, 1.0),
        bar={"tickformat": ".0%"},
    )
