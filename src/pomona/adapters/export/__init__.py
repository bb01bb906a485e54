"""Adapters for other programs: PEFT, vLLM, llama.cpp, or merged into their base model."""

from __future__ import annotations

from pomona.adapters.export.base import Base, read_base
from pomona.adapters.export.base_folder import fitted
from pomona.adapters.export.compress import Compression, compress
from pomona.adapters.export.llama_cpp import export_llama_cpp
from pomona.adapters.export.merged import Rounding, export_merged
from pomona.adapters.export.output import refuse_output
from pomona.adapters.export.peft import export_peft
from pomona.adapters.export.problems import TARGETS, doubts_for, problems_for
from pomona.adapters.export.result import Export
from pomona.adapters.export.targets import EXPORTS, NEEDS_BASE, check_target, export_adapter
from pomona.adapters.export.vllm import export_vllm

__all__ = [
    "EXPORTS",
    "NEEDS_BASE",
    "TARGETS",
    "Base",
    "Compression",
    "Export",
    "Rounding",
    "check_target",
    "compress",
    "doubts_for",
    "export_adapter",
    "export_llama_cpp",
    "export_merged",
    "export_peft",
    "export_vllm",
    "fitted",
    "problems_for",
    "read_base",
    "refuse_output",
]
