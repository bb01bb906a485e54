"""The encoder of BERTScore: a model up to the wanted layer and its tokenizer, loaded with the bert-score library."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from pomona.errors import InputError
from pomona.stand_ins import refuse_pointers

_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers")
_MOST_TOKENS = 4096


class Encoder(NamedTuple):
    """A model up to the wanted layer, in the form that the library needs."""

    model: Any
    tokenizer: Any
    layer: int

    def has_tokens(self, text: str) -> bool:
        """Whether a text has tokens. A blank text is not tokenized, because the library fails for it."""
        from bert_score.utils import sent_encode

        return bool(text.strip()) and len(sent_encode(self.tokenizer, text)) > self.tokenizer.num_special_tokens_to_add()

    def f_scores(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> Float64[np.ndarray, " N"]:
        """F1 of each (prediction, reference), in [0, 1]."""
        from bert_score.utils import bert_cos_score_idf

        weights = defaultdict(lambda: 1.0, dict.fromkeys((self.tokenizer.sep_token_id, self.tokenizer.cls_token_id), 0.0))
        predictions, references = map(list, zip(*pairs, strict=True))
        scores_N3 = bert_cos_score_idf(
            self.model, references, predictions, self.tokenizer, weights, batch_size=batch_size, device=self.model.device
        )
        precision, recall, f_score = scores_N3.double().numpy().T
        return np.where((precision > 0) & (recall > 0), np.minimum(f_score, 1.0), 0.0)


@lru_cache(maxsize=1)
def load_encoder(model: str, layer: int | None, device: str) -> Encoder:
    """Load an encoder; the last one is cached.

    Only safetensors are read, and no code of a model's repository is run. The network is used only for hub ids.

    Args:
        model: a folder in transformers' format or a hub id.
        layer: the layer whose output is wanted; default: the library authors' best layer for this hub id, else the last.
        device: `auto` (an accelerator if there is one), or a torch device.

    Raises:
        InputError: no such model, layer or device, or a model that the library would load incorrectly.
    """
    import torch
    from bert_score.utils import get_model, get_tokenizer, model2layers
    from safetensors import SafetensorError

    folder = _folder(model)
    config = _config(folder, model)
    layers = next((config[key] for key in _LAYERS if isinstance(config.get(key), int)), None)
    if layer is None:
        layer = model2layers.get(model, layers)
    if layer is None or (layers is not None and layer > layers):
        raise InputError("the encoder has no such layer", field="layer", value=layer, fix=f"It has {layers or 'an unknown number'}")
    try:
        place = (torch.accelerator.current_accelerator(check_available=True) or "cpu") if device == "auto" else device
        tokenizer = get_tokenizer(str(folder))
        network: Any = get_model(str(folder), layer)
        network.to(place)
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError, ImportError, SafetensorError) as error:
        raise _unloadable((str(error).strip().splitlines() or [type(error).__name__])[0], model) from error
    if tokenizer.pad_token_id is None:
        raise _unloadable("its tokenizer has no padding token", model)
    _put_space_before(tokenizer)
    tokenizer.model_max_length = min([tokenizer.model_max_length, *_longest(network), _MOST_TOKENS])
    return Encoder(network, tokenizer, layer)


def _folder(model: str) -> Path:
    """The folder that holds the encoder: the one given, or the hub's files that are not pickles or code."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise _unloadable("there is no such folder", model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_FILES), ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:  # the errors of the hub are subclasses of these
        raise _unloadable((str(error).strip().splitlines() or [type(error).__name__])[0], model) from error


def _config(folder: Path, model: str) -> dict[str, Any]:
    """The model's settings; refuses what the library would load in another way than it should."""
    refuse_pointers(folder)
    settings: dict[str, dict[str, Any]] = {}
    for name in ("config.json", "tokenizer_config.json"):
        try:
            settings[name] = json.loads((folder / name).read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            settings[name] = {}
        except (OSError, ValueError) as error:
            raise _unloadable(f"its {name} cannot be read", model) from error
        if "auto_map" in settings[name]:
            raise _unloadable("it needs its own code, which Pomona does not run", model)
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        raise _unloadable("it has no model.safetensors, and pickles are not read", model)
    if (folder / "adapter_config.json").is_file():
        raise _unloadable("its folder has an adapter, which the library would load too", model)
    if "t5" in str(folder) and "t5" not in str(settings["config.json"].get("model_type")):
        raise _unloadable(f"bert-score treats any path that contains t5 as a T5 model, here {folder}", model)
    return settings["config.json"]


def _put_space_before(tokenizer: Any) -> None:
    """Let byte-level tokenizers read a first word as they read the others.

    The library asks RoBERTa's and GPT-2's for it at each call, which transformers 5 ignores; published scores have it.
    """
    from bert_score.utils import GPT2Tokenizer, RobertaTokenizer

    if isinstance(tokenizer, (GPT2Tokenizer, RobertaTokenizer)):
        tokenizer.backend_tokenizer.pre_tokenizer.add_prefix_space = True


def _longest(network: Any) -> list[int]:
    """How many tokens the model has positions for; none where it counts otherwise. RoBERTa's start after the padding's."""
    table = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
    positions = getattr(network.config, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return []
    padding = getattr(table, "padding_idx", None)
    return [positions if padding is None else positions - padding - 1]


def _unloadable(reason: str, model: str) -> InputError:
    return InputError(
        f"the encoder cannot be loaded: {reason}",
        field="model",
        value=model,
        fix="Give a folder with config.json, model.safetensors and a tokenizer, or a hub id that can be reached",
    )
