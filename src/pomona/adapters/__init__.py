"""Adapters, and how to read, write and check them."""

from __future__ import annotations

from pomona.adapters.check import Finding, check_adapters
from pomona.adapters.compatible import check_compatible
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.model_order import layer_number, model_order
from pomona.adapters.new_folder import refuse_occupied
from pomona.adapters.read import check_finite, read_adapter
from pomona.adapters.write import write_adapter
from pomona.adapters.zero_components import without_zero_components

__all__ = [
    "Adapter",
    "Factors",
    "Finding",
    "check_adapters",
    "check_compatible",
    "check_finite",
    "layer_number",
    "model_order",
    "read_adapter",
    "refuse_occupied",
    "without_zero_components",
    "write_adapter",
]
