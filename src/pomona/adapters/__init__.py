"""What an adapter is, and how it is read, written and checked."""

from __future__ import annotations

from pomona.adapters.check import Finding, check_adapters
from pomona.adapters.compatible import check_compatible
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.folder import check_finite, read_adapter, refuse_occupied, write_adapter
from pomona.adapters.order import model_order

__all__ = [
    "Adapter",
    "Factors",
    "Finding",
    "check_adapters",
    "check_compatible",
    "check_finite",
    "model_order",
    "read_adapter",
    "refuse_occupied",
    "write_adapter",
]
