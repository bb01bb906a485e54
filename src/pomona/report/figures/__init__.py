"""The report's figures: SVG drawn from the record and the history, each with its values as a table."""

from __future__ import annotations

from pomona.report.figures.layers import even_sparsity, importance_by_layer, sparsity_by_layer
from pomona.report.figures.ratio import fitted_curve, ratio_by_round, reward_by_round
from pomona.report.figures.results import differences, scores
from pomona.report.figures.sources import kept_by_source, weights_by_source
from pomona.report.figures.style import Figure
from pomona.report.figures.training import dev_loss, dev_score, training_loss
from pomona.report.figures.trials import score_by_ratio
from pomona.report.read import RunFolder

__all__ = ["Figure", "all_figures", "even_sparsity"]


def all_figures(run: RunFolder) -> dict[str, list[Figure]]:
    """The figures of each section of the page; a figure is left out if the run lacks its data."""
    record = run.record
    sections = {
        "results": [scores(record), differences(record)],
        "ratio": [ratio_by_round(record), fitted_curve(record), score_by_ratio(record), reward_by_round(record)],
        "training": [training_loss(run), dev_score(run), dev_loss(run)],
        "sources": [weights_by_source(record), kept_by_source(record)],
        "layers": [sparsity_by_layer(record), importance_by_layer(record)],
    }
    return {name: [figure for figure in figures if figure is not None] for name, figures in sections.items()}
