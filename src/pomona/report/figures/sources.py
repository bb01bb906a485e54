"""Which merged adapter counts where: the weights that were trained, and what pruning kept, by layer."""

from __future__ import annotations

from statistics import fmean

from pomona.report.choices import chosen
from pomona.report.figures.heat import HeatMap
from pomona.report.figures.layers import left_out
from pomona.report.figures.style import Figure
from pomona.runs.record import RunRecord


def kept_by_source(record: RunRecord) -> Figure | None:
    """Share of the components of each source that were kept in a layer, over its modules there. None without such shares.

    A source without components of its own in a layer, or with none that are trained, is blank there.
    """
    cells = by_layer(record, "kept_by_source")
    if cells is None:
        return None
    return Figure(
        "kept-by-source",
        "What was kept of each source",
        f"Share of each source's rank-one components that were kept, by layer.{left_out(record)}",
        HeatMap(cells, limits=(0.0, 1.0), share=True),
    )


def weights_by_source(record: RunRecord) -> Figure | None:
    """The mean merge weight of each source in a layer. None if no weights were trained."""
    cells = by_layer(record, "merge_weights")
    if cells is None:
        return None
    return Figure(
        "weights-by-source",
        "Trained merge weights",
        "The mean weight of each source over the modules of a layer, as training left it.",
        HeatMap(cells),
    )


def merged_names(record: RunRecord) -> list[str]:
    """The merged adapters in their order."""
    return [source.name for source in record.sources] + (["target LoRA"] if chosen(record, "merge.target") else [])


def by_layer(record: RunRecord, quantity: str) -> dict[tuple[str, int], float | None] | None:
    """(adapter, layer) -> the mean of what each module records of each merged adapter; None if none does."""
    found: dict[tuple[str, int], list[float]] = {}
    names = merged_names(record)
    for module in record.modules:
        for name, value in zip(names, getattr(module, quantity) or (), strict=False):
            if value is not None and module.layer is not None:
                found.setdefault((name, module.layer), []).append(value)
    rows = sorted(found, key=lambda cell: (names.index(cell[0]), cell[1]))
    return {cell: fmean(found[cell]) for cell in rows} or None
