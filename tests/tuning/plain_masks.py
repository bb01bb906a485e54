"""Which entries ought to be pruned, in plain loops over Python's floats: METHODS word by word, and slow.

A factor is a list of rows; a module is `(A, B)`, its merged factors with the scaling in A. Axes: R rank, I inputs, O outputs.
Where each adapter has masks of its own, `module@k` is what adapter k brings into the module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import mul
from typing import Any, NamedTuple

import torch

from pomona.adapters.factors import Factors
from pomona.importance import FactorPair, ModuleStatistics, importance_metrics
from pomona.importance import Smoothed as Averages

Rows = list[list[float]]
Module = tuple[Rows, Rows]
Entry = tuple[str, str, int, int]
"""(module, "A" or "B", row, column)."""

NEAR = 1e-5
"""Scores that differ by less, relative to the threshold, may be ranked either way by another rounding."""


def merged(A: Any, B: Any, shares: Sequence[float], combine: str) -> Module:
    """The merged factors of adapters with these shares `w_k s_k`: rows beside each other, or sums of roots of shares."""
    if combine == "concat":  # A [R, I] holds the adapters' rows, `shares` one share a row
        return [[share * a for a in row] for share, row in zip(shares, A, strict=True)], B
    roots = [math.sqrt(abs(share)) for share in shares]
    signed = [math.copysign(root, share) for root, share in zip(roots, shares, strict=True)]
    return _sum(signed, A), _sum(roots, B)


def own(A: Any, B: Any, shares: Sequence[float], ranks: Sequence[int], combine: str) -> list[Module]:
    """What each adapter of these ranks brings into `merged`, from the same arguments."""
    firsts = [sum(ranks[:k]) for k in range(len(ranks))]
    if combine == "concat":
        A, B = merged(A, B, shares, combine)
        return [
            (A[first : first + rank], [row[first : first + rank] for row in B]) for first, rank in zip(firsts, ranks, strict=True)
        ]
    return [
        merged([A_k[:rank]], [[row[:rank] for row in B_k]], [share], combine)
        for A_k, B_k, rank, share in zip(A, B, ranks, shares, strict=True)
    ]


def _sum(factors: Sequence[float], matrices: Sequence[Rows]) -> Rows:
    rows, columns = len(matrices[0]), len(matrices[0][0])
    return [
        [sum(f * matrix[r][c] for f, matrix in zip(factors, matrices, strict=True)) for c in range(columns)] for r in range(rows)
    ]


def times(matrix: Rows, vectors: Iterable[Sequence[float]]) -> Rows:
    """`matrix @ vector` for each vector."""
    return [[sum(map(mul, row, vector)) for row in matrix] for vector in vectors]


def squares(vectors: Rows) -> list[float]:
    """Sum of squares of each feature."""
    return [sum(map(mul, feature, feature)) for feature in zip(*vectors, strict=True)]


def merged_gradient(A: Any, B: Any, shares: Sequence[float], combine: str) -> Module:
    """The gradient by the merged factors, from that by each adapter's: with sums the last adapter's, whose rank is the highest."""
    if combine == "concat":
        return [[a / share for a in row] for share, row in zip(shares, A, strict=True)], B
    root = math.sqrt(abs(shares[-1]))
    signed = math.copysign(root, shares[-1])
    return [[a / signed for a in row] for row in A[-1]], [[b / root for b in row] for row in B[-1]]


class Smoothed(NamedTuple):
    """AdaLoRA's averages of |W g|, and of its distance from the mean."""

    mean: Module
    uncertainty: Module


def smooth(before: Smoothed | None, module: Module, gradient: Module, keep_mean: float, keep_uncertainty: float) -> Smoothed:
    """The averages after another step."""
    sides = []
    for side in (0, 1):
        W, g = module[side], gradient[side]
        mean, uncertainty = [[0.0] * len(row) for row in W], [[0.0] * len(row) for row in W]
        for i, row in enumerate(W):
            for j, value in enumerate(row):
                now = abs(value * g[i][j])
                old_mean, old_uncertainty = (before.mean[side][i][j], before.uncertainty[side][i][j]) if before else (0.0, 0.0)
                mean[i][j] = keep_mean * old_mean + (1 - keep_mean) * now
                uncertainty[i][j] = keep_uncertainty * old_uncertainty + (1 - keep_uncertainty) * abs(now - mean[i][j])
        sides.append((mean, uncertainty))
    (mean_A, uncertainty_A), (mean_B, uncertainty_B) = sides
    return Smoothed((mean_A, mean_B), (uncertainty_A, uncertainty_B))


class Seen(NamedTuple):
    """All that a metric may read of one module."""

    module: Module
    input_norm: Sequence[float]
    hidden_norm: Sequence[float]
    gradient: Module
    smoothed: Smoothed
    seed: int


def _columns(matrix: Rows, factors: Sequence[float]) -> Rows:
    return [[abs(value) * factor for value, factor in zip(row, factors, strict=True)] for row in matrix]


def _products(one: Module, other: Module) -> Module:
    A, B = (
        [[abs(a * b) for a, b in zip(*rows, strict=True)] for rows in zip(*sides, strict=True)]
        for sides in zip(one, other, strict=True)
    )
    return A, B


def _by_norms(module: Module, seen: Seen) -> Module:
    return _columns(module[0], seen.input_norm), _columns(module[1], seen.hidden_norm)


def _ones(module: Module) -> Module:
    return [[1.0] * len(row) for row in module[0]], [[1.0] * len(row) for row in module[1]]


def _delta_sensitivity(seen: Seen) -> Module:
    """|B^T (sign(BA) norm(x))| and |(sign(BA) norm(x)) A^T|."""
    A, B = seen.module
    columns = list(zip(*A, strict=True))
    signs = [
        [(value > 0) * norm - (value < 0) * norm for value, norm in zip(line, seen.input_norm, strict=True)]
        for line in ([sum(map(mul, row, column)) for column in columns] for row in B)
    ]
    of_inputs = list(zip(*signs, strict=True))
    return (
        [[abs(sum(map(mul, B_column, signs_column))) for signs_column in of_inputs] for B_column in zip(*B, strict=True)],
        [[abs(sum(map(mul, line, A_row))) for A_row in A] for line in signs],
    )


METRICS: dict[str, Callable[[Seen], Module]] = {
    "wanda": lambda seen: _by_norms(seen.module, seen),
    "delta_sensitivity": _delta_sensitivity,
    "magnitude": lambda seen: _products(seen.module, _ones(seen.module)),
    "activation": lambda seen: _by_norms(_ones(seen.module), seen),
    "gradient": lambda seen: _products(seen.module, seen.gradient),
    "gradient_activation": lambda seen: _by_norms(seen.gradient, seen),
    "gradient_smoothed": lambda seen: _products(*seen.smoothed),
}
"""The scores of A's and of B's entries, by the formulas of Pomona's own metrics."""


def oracle(metric: str) -> Callable[[Seen], Module]:
    """A metric's scores of what plain loops have seen: by its formula above, else its own in float64, which its own test holds."""
    return METRICS.get(metric) or (lambda seen: _own_scores(metric, seen))


def _own_scores(metric: str, seen: Seen) -> Module:
    def pair(module: Module) -> FactorPair:
        return FactorPair(*(torch.tensor(side, dtype=torch.float64) for side in module))

    input_norm, hidden_norm = (torch.tensor(norm, dtype=torch.float64) for norm in (seen.input_norm, seen.hidden_norm))
    statistics = ModuleStatistics(
        input_norm, hidden_norm, pair(seen.gradient), Averages(pair(seen.smoothed.mean), pair(seen.smoothed.uncertainty)), seen.seed
    )
    A, B = importance_metrics.create(metric).scores(Factors(*pair(seen.module)), statistics)
    return A.tolist(), B.tolist()


def update_size(module: Module, input_norm: Sequence[float]) -> float:
    """The mean of |(BA)_oj| norm(x)_j."""
    A, B = module
    columns = list(zip(*A, strict=True))
    total = sum(abs(sum(map(mul, line, column))) * norm for line in B for column, norm in zip(columns, input_norm, strict=True))
    return total / (len(B) * len(input_norm))


def pruned(
    modules: Mapping[str, Module],
    scores: Mapping[str, Module],
    input_norms: Mapping[str, Sequence[float]],
    prune_ratio: float,
    granularity: str,
    scope: str,
) -> tuple[set[Entry], set[Entry], int]:
    """The pruned entries, those that a rounding might decide otherwise, and how many are pruned."""
    units = _units(modules, scores, input_norms, granularity)
    groups: dict[object, list[tuple[float, list[Entry]]]] = {}
    for importance, entries in units:
        module, side = entries[0][:2]
        path, _, adapter = module.partition("@")
        found = re.search(r"\d+", path)
        layer = found.group() if found else path
        tensor = (module, side) if granularity == "parameter" else module
        competitors = adapter, {"tensor": tensor, "layer": layer, "global": "all"}[scope]
        groups.setdefault(competitors, []).append((importance, entries))
    gone: set[Entry] = set()
    unsure: set[Entry] = set()
    for group in groups.values():
        count = math.floor(round(prune_ratio * len(group), 9))
        ranked = sorted(group, key=lambda unit: unit[0])  # stable: of equals the first goes first
        gone |= {entry for _, entries in ranked[:count] for entry in entries}
        if count:
            last = ranked[count - 1][0]
            near = [unit for unit in group if abs(unit[0] - last) <= NEAR * last]
            if any(unit[0] != last for unit in near):
                unsure |= {entry for _, entries in near for entry in entries}
    return gone, unsure, len(gone)


def _units(
    modules: Mapping[str, Module], scores: Mapping[str, Module], input_norms: Mapping[str, Sequence[float]], granularity: str
) -> list[tuple[float, list[Entry]]]:
    units: list[tuple[float, list[Entry]]] = []
    for name, module in modules.items():
        A, B = scores[name]
        of_A = [[(name, "A", r, j) for j in range(len(A[0]))] for r in range(len(A))]
        of_B = [[(name, "B", o, r) for o in range(len(B))] for r in range(len(A))]
        if granularity == "parameter":
            units += [(A[r][j], [of_A[r][j]]) for r in range(len(A)) for j in range(len(A[0]))]
            units += [(B[o][r], [(name, "B", o, r)]) for o in range(len(B)) for r in range(len(B[0]))]
        elif granularity == "rank":
            for r in range(len(A)):
                joint = sum(A[r]) / len(A[r]) * (sum(line[r] for line in B) / len(B))
                units.append((joint, of_A[r] + of_B[r]))
        else:
            units.append((update_size(module, input_norms[name]), [entry for rows in (*of_A, *of_B) for entry in rows]))
    return units
