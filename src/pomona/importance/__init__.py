"""Importance metrics: (factors, statistics) -> scores of every entry. One metric a file."""

from __future__ import annotations

from pomona.importance.activation import Activation
from pomona.importance.base import FactorPair, ImportanceMetric, ModuleStatistics, Smoothed, StackedFactors, importance_metrics
from pomona.importance.delta_sensitivity import DeltaSensitivity
from pomona.importance.gradient import Gradient
from pomona.importance.gradient_activation import GradientActivation
from pomona.importance.gradient_smoothed import GradientSmoothed
from pomona.importance.magnitude import Magnitude
from pomona.importance.random import Random
from pomona.importance.update_size import mean_update_size
from pomona.importance.wanda import Wanda

__all__ = [
    "Activation",
    "DeltaSensitivity",
    "FactorPair",
    "Gradient",
    "GradientActivation",
    "GradientSmoothed",
    "ImportanceMetric",
    "Magnitude",
    "ModuleStatistics",
    "Random",
    "Smoothed",
    "StackedFactors",
    "Wanda",
    "importance_metrics",
    "mean_update_size",
]
