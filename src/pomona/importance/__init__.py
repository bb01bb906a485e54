"""Importance metrics: (factors, statistics) -> scores of every entry. One metric a file."""

from __future__ import annotations

from pomona.importance.base import ImportanceMetric, ModuleStatistics, importance_metrics
from pomona.importance.magnitude import Magnitude
from pomona.importance.wanda import Wanda

__all__ = ["ImportanceMetric", "Magnitude", "ModuleStatistics", "Wanda", "importance_metrics"]
