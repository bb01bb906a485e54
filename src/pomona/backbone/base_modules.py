"""The table of a base model's modules (`pomona.adapters.base_modules`): from a model in memory, or from a folder's `config.json`.

A folder's model is built on torch's meta device: its class, its modules and their shapes, and not one weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pomona.adapters.base_modules import BaseModule, BaseModules
from pomona.adapters.config import read_json_object
from pomona.adapters.export.base import CONFIG
from pomona.backbone.linear_modules import linear_shape
from pomona.backbone.model_sizes import refuse_sizes
from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FACTOR = ".lora_A.weight"


def modules_of(model: PreTrainedModel) -> BaseModules:
    """The modules of a model, what PEFT would make of their older names, and those of its files.

    Args:
        model: with or without weights; no adapter is attached.
    """
    modules = {path: found for path, module in model.named_modules() if (found := _module(module)) is not None}
    modules |= {
        path: BaseModule("experts", (parameter.shape[1], parameter.shape[2]), experts=len(parameter))
        for path, parameter in model.named_parameters()
        if parameter.ndim == 3 and ".experts." in path
    }
    head = model.get_output_embeddings()
    heads = frozenset(path for path, module in model.named_modules() if head is not None and module is head)
    return BaseModules(modules, _translation(model), _parameters(model), heads)


def modules_of_folder(folder: Path, wanted: Collection[str] = ()) -> BaseModules | None:
    """The modules of a folder's model, by its `config.json` alone. No weights are read, and no code of the folder is run.

    Args:
        folder: of a model in transformers' format.
        wanted: paths of modules. The folder's class may be one without a head, as encoders are saved, while adapters are trained on
            either: of the two the one that has more of these is taken.

    Returns:
        The table; None where transformers has no class for it, or cannot make one of its config.
    """
    found = list(_models(folder))
    tables = [modules_of(model) for model in found]
    return max(tables, key=lambda table: sum(table.find(path) is not None for path in wanted), default=None)


def _models(folder: Path) -> Iterator[PreTrainedModel]:
    """Without weights: of the class that the config names and, where that is one without a head, of the one that has it."""
    import transformers
    from transformers import AutoConfig

    refuse_sizes(_readable(folder / CONFIG), folder / CONFIG)
    with _unknown_is_none():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        names = getattr(config, "architectures", None) or []
        named = getattr(transformers, str(names[0]), None) if names else None
        with_head = _with_head(config)
        classes = [named] if named is not None and _has_head(named) else [with_head, named]
        for kind in dict.fromkeys(one for one in classes if one is not None):
            with torch.device("meta"):
                model: Any = kind._from_config(config)
            yield model


def _readable(file: Path) -> dict[str, object]:
    """A config; empty where it cannot be read, which is said where more of it is needed."""
    try:
        return read_json_object(file)
    except InputError:
        return {}


def _has_head(kind: type) -> bool:
    return not kind.__name__.endswith(("Model", "Encoder")) or "LMHead" in kind.__name__


def _with_head(config: Any) -> Any:
    """The class of a model that writes text, for this config; None where there is none."""
    from transformers.models.auto import modeling_auto

    order = ["MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", "MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING"]
    if getattr(config, "is_encoder_decoder", False):
        order.reverse()
    tables = [getattr(modeling_auto, name) for name in order]
    return next((table[type(config)] for table in tables if type(config) in table), None)


@contextmanager
def _unknown_is_none() -> Iterator[None]:
    """Say nothing of a config that transformers cannot make a model of: the files' headers are asked then."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, ArithmeticError):
        pass
    except StrictDataclassError:  # a field of the wrong kind
        pass
    finally:
        logging.set_verbosity(level)


def _module(module: nn.Module) -> BaseModule | None:
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Embedding):
        return BaseModule("embedding", (module.embedding_dim, module.num_embeddings))
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 2:
        return None if weight is None else BaseModule("other", note=type(module).__name__)
    if isinstance(module, nn.Linear | Conv1D):
        return BaseModule("linear" if isinstance(module, nn.Linear) else "conv1d", linear_shape(module))
    rows, columns = weight.shape
    return BaseModule("other", (rows, columns), type(module).__name__)


def _translation(model: PreTrainedModel) -> Callable[[str], str]:
    """As PEFT 0.21 renames keys (`convert_peft_adapter_state_dict_for_transformers`): only for the model types of a list."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import rename_source_key

    if get_checkpoint_conversion_mapping(getattr(model.config, "model_type", None)) is None:
        return lambda module: module

    @functools.cache
    def translated(module: str) -> str:
        renamings, _ = conversions()
        new = rename_source_key(f"{module}{_FACTOR}", renamings, [])[0].removesuffix(_FACTOR)
        # A renaming that only takes parts off the front is undone.
        return module if f"{module}{_FACTOR}".endswith(f"{new}{_FACTOR}") else new

    conversions = _conversions(model)
    return translated


def _parameters(model: PreTrainedModel) -> Callable[[str], str | None]:
    """As transformers 5 names a checkpoint's tensors while it loads them (`convert_and_load_state_dict_in_model`)."""
    from transformers.core_model_loading import rename_source_key

    conversions, state = _conversions(model), functools.cache(model.state_dict)

    @functools.cache
    def parameter(name: str) -> str | None:
        own, prefix = state(), model.base_model_prefix
        new, converter = rename_source_key(name, *conversions(), prefix, own)
        if new not in own and name in own:
            new, converter = rename_source_key(name, [], [], prefix, own)
        return new if converter is None else None

    return parameter


def _conversions(model: PreTrainedModel) -> Callable[[], tuple[list[Any], list[Any]]]:
    """The renamings and the converters of a model's tensors, made when they are asked for."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    @functools.cache
    def made() -> tuple[list[Any], list[Any]]:
        every = get_model_conversion_mapping(model)
        return [one for one in every if isinstance(one, WeightRenaming)], [one for one in every if isinstance(one, WeightConverter)]

    return made
