"""Where a model's files are, and what in them stands against loading the model whole, plain and alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE, read_json_object
from pomona.adapters.export.base import CONFIG
from pomona.adapters.export.checkpoint import read_checkpoint
from pomona.adapters.quantised import refuse_codes, refuse_other_quantisers, refuse_without_codes
from pomona.backbone.embedded import EMBEDDED, embedded_model
from pomona.backbone.model_sizes import refuse_sizes
from pomona.backbone.quantised import check_packages
from pomona.errors import InputError
from pomona.plain_files import refuse_special, refuse_special_files
from pomona.stand_ins import refuse_pointers

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json", "*.tiktoken")
_HUB_ID = re.compile(r"[a-zA-Z0-9_][\w.-]*/[\w.-]+", re.ASCII)
_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]*:/")
_WHOLE = "Give a folder with config.json, safetensors weights and a tokenizer"
_WEIGHTS = ("*model*.safetensors", "*model*.bin", "*.index.json")


def locate(model: str) -> Path | str:
    """The folder of a model, or its hub id where there is no such folder.

    Raises:
        InputError: neither; one of its files is a Git LFS pointer.
    """
    if model == EMBEDDED:
        return embedded_model()
    path = Path(model).expanduser()
    if path.is_dir():
        refuse_special_files(path)
        refuse_pointers(path, (file for file in path.iterdir() if not file.name.startswith("adapter_")))
        return path
    if path.is_file():
        kind = "a GGUF file" if path.suffix == ".gguf" else "a file"
        raise InputError(
            f"is {kind} and not a model folder", field="model", value=model, fix="Give a folder in transformers' format"
        )
    refuse_special(path)
    if _ADDRESS.match(model):
        fix = "Download the model, and give its folder; or give a hub id, owner/name"
        raise InputError("is an address, from which nothing is fetched", field="model", value=model, fix=fix)
    if not _HUB_ID.fullmatch(model):
        raise InputError("no such model folder", field="model", value=model, fix="Give an existing folder, a hub id, or `embedded`")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "TRUE", "YES", "ON"} and cached_folder(model) is None:
        raise InputError(
            "neither a folder nor in the local hub cache, and HF_HUB_OFFLINE is set",
            field="model",
            value=model,
            fix="Give an existing folder or `embedded`, or unset HF_HUB_OFFLINE to let it be downloaded",
        )
    return model


def cached_folder(hub_id: str) -> Path | None:
    """Where the local hub cache has a repository; None where it does not have it, or knows no such id."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in (CONFIG, CONFIG_FILE):
        try:
            found = try_to_load_from_cache(hub_id, name)
        except HFValidationError:
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def fetched_folder(hub_id: str) -> Path | None:
    """The cache's folder of a repository, with the two small files that say what it is; None where they cannot be had."""
    from huggingface_hub import hf_hub_download

    folder = None
    for name in (CONFIG, CONFIG_FILE):
        try:
            folder = Path(hf_hub_download(hub_id, name)).parent
        except (OSError, ValueError):  # what the hub raises is of these; a file that is not there is no fault
            continue
    return folder


def check_files(folder: Path, model: str, *, whole: bool) -> tuple[list[str], InputError | None]:
    """Look at a model's files before any weight is read.

    Args:
        folder: where they are.
        model: what the user calls it.
        whole: whether its weights are there already, or are still to be fetched.

    Returns:
        Warnings; and what is wrong with the weights' files, which counts only if they cannot be loaded.

    Raises:
        InputError: the folder is an adapter's and not a model's, or no model's; the model is quantised, and not by bitsandbytes.
    """
    warnings = []
    if (folder / CONFIG_FILE).is_file():
        if not (folder / CONFIG).is_file() or (whole and not _weights(folder)):
            raise _is_adapter(folder, model)
        warnings.append(
            f"{model} also holds an adapter ({CONFIG_FILE}), which is not used: the base model alone is loaded. To use the "
            f"adapter, name it as one, in a folder without {CONFIG}"
        )
    if not (folder / CONFIG).is_file():
        raise InputError(f"the model cannot be loaded: it has no {CONFIG}", field="model", value=model, fix=_WHOLE)
    config = _config(folder, model)
    quantised = refuse_other_quantisers(config, folder / CONFIG)
    if quantised:
        check_packages(model)
    refuse_sizes(config, folder / CONFIG)
    try:
        checkpoint = read_checkpoint(folder)
    except (InputError, OSError) as error:
        return warnings, error if isinstance(error, InputError) else None
    if quantised:
        refuse_without_codes(checkpoint, folder / CONFIG)
    else:
        refuse_codes(checkpoint)
        refuse_sizes(config, folder / CONFIG, checkpoint)
    return warnings, None


def lacks_tokenizer(folder: Path) -> bool:
    """Whether no file of the folder holds a tokenizer's vocabulary."""
    return not any(True for pattern in _TOKENIZERS for _ in folder.glob(pattern))


def pads_outside(folder: Path) -> bool:
    """Whether the config's padding token is beyond the vocabulary that it gives the model."""
    config = read_json_object(folder / CONFIG)
    pad, size = config.get("pad_token_id"), config.get("vocab_size")
    return isinstance(pad, int) and isinstance(size, int) and not -size <= pad < size


def _weights(folder: Path) -> list[Path]:
    """Files of whole weights, whatever their format."""
    return [path for pattern in _WEIGHTS for path in folder.glob(pattern) if not path.name.startswith("adapter_")]


def _config(folder: Path, model: str) -> dict[str, object]:
    try:
        return read_json_object(folder / CONFIG)
    except InputError as error:
        raise InputError(f"the model cannot be loaded: {error}", field="model", value=model) from error


def _is_adapter(folder: Path, model: str) -> InputError:
    try:
        named = read_json_object(folder / CONFIG_FILE).get("base_model_name_or_path")
    except InputError:
        named = None
    base = f"its base model, {named}," if isinstance(named, str) and named else "its base model"
    return InputError(
        "is an adapter and not a model",
        field="model",
        value=model,
        fix=f"Give {base} as the model, and {model} as an adapter",
    )
