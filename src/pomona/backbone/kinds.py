"""What the modules of a model are, from its config alone: no weights are read, and no code of a model's repository is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pomona.adapters.convert import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def module_kinds(folder: Path) -> dict[str, Kind] | None:
    """Path -> what it is, of every linear map (`nn.Linear`, and GPT-2's `Conv1D`) and embedding.

    Args:
        folder: a model folder in transformers' format.

    Returns:
        None where transformers cannot build the model from its config.
    """
    from transformers.pytorch_utils import Conv1D

    network = _without_weights(folder)
    if network is None:
        return None
    found: dict[str, Kind] = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear):
            found[path] = "linear"
        elif isinstance(module, Conv1D):
            found[path] = "transposed"
        elif isinstance(module, nn.Embedding):
            found[path] = "embedding"
    return found


def _without_weights(folder: Path) -> PreTrainedModel | None:
    """The model of the class that its config names, on the meta device."""
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        named = getattr(transformers, str((config.architectures or [""])[0]), None)
        with torch.device("meta"):
            if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
                return named(config)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, NotImplementedError):
        return None
