"""Whatever people have, as a plain LoRA folder: pickles, mlx-lm, DoRA, whole fine-tuned models."""

from __future__ import annotations

from pomona.adapters.convert.convert import convert
from pomona.adapters.convert.difference import DROPS
from pomona.adapters.convert.result import Approximation, Conversion, Dropped
from pomona.adapters.convert.source import Source, find_source

__all__ = ["DROPS", "Approximation", "Conversion", "Dropped", "Source", "convert", "find_source"]
