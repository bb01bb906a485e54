"""The frozen base model and its tokenizer, from a folder, a hub id, or the embedded default."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pomona.adapters.base_identity import identity_of_folder, identity_of_tensors
from pomona.adapters.config import read_json_object
from pomona.adapters.export.base import CONFIG
from pomona.adapters.quantised import refuse_other_quantisers
from pomona.adapters.same_base import Base
from pomona.backbone.answer_end import end_tokens
from pomona.backbone.attention import check_attention
from pomona.backbone.device import described, resolve_dtype, unused_gpu, use_tensor_cores
from pomona.backbone.embedded import EMBEDDED, NAME
from pomona.backbone.linear_modules import linear_shape
from pomona.backbone.model_folder import check_files, fetched_folder, lacks_tokenizer, locate, pads_outside
from pomona.backbone.plain_weights import refuse_packed
from pomona.backbone.quantised import Quantization, quantised_bits, ready_to_train
from pomona.backbone.settings_prints import settings_prints
from pomona.backbone.sharded import shard
from pomona.backbone.speed import Packing, Speed, Switch, switched_on
from pomona.backbone.token_ids import embedding_rows, padding_id
from pomona.backbone.trial_copy import trial_copy
from pomona.engines import NATIVE, Engine, asked_for
from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FAILURES = (Exception,)  # whatever transformers trips over in a config, a tokenizer or a weight that others wrote
QUANTISED = "quantization_config"
"""The key of a recipe, of transformers, and of a `config.json`."""
_NO_ADAPTER = "no-adapter"
"""A folder in which transformers looks for an adapter to load with a model: there is none, and the model comes alone."""
_NO_TOKENIZER = "it has no tokenizer, such as tokenizer.json; save the tokenizer into the same folder"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen causal language model.

    Args:
        model: in eval mode, no parameter requires a gradient.
        tokenizer: its tokenizer; has a padding token.
        name: what records and exported adapters call it.
        warnings: what loading it gave to say.
        folder: where its files are; None: it was made in memory.
        speed: the speed-ups in use; by default none, the plain path.
        engine: shares out the examples whose losses or answers are wanted; by default over the ranks of `torch.distributed`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    warnings: tuple[str, ...] = ()
    folder: Path | None = None
    speed: Speed = field(default_factory=Speed)
    engine: Engine = NATIVE

    @functools.cached_property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device

    @property
    def where(self) -> str:
        """The precision of the weights and their device, in words."""
        return described(self.device, self.model.dtype)

    @property
    def context_tokens(self) -> int | None:
        """The longest text that the model was made for, in tokens, where its config says so."""
        found = getattr(self.model.config, "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None

    @functools.cached_property
    def embedding_rows(self) -> int:
        """How many tokens the model has an embedding for; its tokenizer may have more."""
        return embedding_rows(self.model)

    @functools.cached_property
    def pad_id(self) -> int:
        """A token to pad with, for which the model has an embedding."""
        return padding_id(self.tokenizer, self.embedding_rows)

    def linear_modules(self) -> dict[str, nn.Module]:
        """Path -> module of every linear map (`nn.Linear`, and GPT-2's `Conv1D`) but the output head."""
        from transformers.pytorch_utils import Conv1D

        head = self.model.get_output_embeddings()
        return {
            path: module
            for path, module in self.model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Path -> (O, I) of every linear module."""
        return {path: linear_shape(module) for path, module in self.linear_modules().items()}

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights' names, shapes, dtypes and bytes."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of all that shapes its results: `model`, the weights, and those of `settings_prints`."""
        return {"model": self.fingerprint, **settings_prints(self.model, self.tokenizer)}

    @functools.cached_property
    def base(self) -> Base:
        """Which model it is, for adapters that are trained on it or meet it: in whatever dtype, under whatever name."""
        known = identity_of_folder(self.folder) if self.folder is not None else None
        if known is not None and any(quantised_bits(module) for module in self.model.modules()):
            known = replace(known, weights=None)  # its files may hold codes
        return Base(self.name, known or identity_of_tensors(self.model.config.to_dict(), self.model.state_dict()))


def load_backbone(
    model: str = EMBEDDED,
    device: str = "auto",
    dtype: str = "auto",
    speed: Switch = "auto",
    quantization_config: Quantization | None = None,
    attention: str | None = None,
) -> Backbone:
    """Load a frozen model.

    Only safetensors weights are read and no code of a model's repository is run. The network is used for hub ids alone,
    as the `HF_HUB_*` settings allow.

    Args:
        model: `embedded`, a folder in transformers' format, or a hub id.
        device: `auto` (an accelerator where there is one), or a torch device such as `cpu`, `cuda:1`.
        dtype: `float32`, `bfloat16` or `float16`, of the frozen weights; `auto`: bfloat16 on an accelerator that computes in it,
            else float32. Adapters are always trained in float32.
        speed: `auto`, the speed-ups that suit the model and its device; `off`, the plain path.
        quantization_config: how to quantise the model; None: it is loaded as it is, quantised or not.
        attention: transformers' name of an attention implementation, such as `sdpa`, `eager` or `flash_attention_2`; None: the
            model's own.

    Raises:
        InputError: no such model, not a causal language model, weights that are not whole, no token to pad with, unknown dtype,
            device or attention implementation; the model is quantised already.
        MissingPackageError: a quantised model, and bitsandbytes or accelerate is not installed.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # Pomona's own display says what is going on
    place, engine = resolve_device(device), asked_for(NATIVE)
    precision = resolve_dtype(dtype, place)
    check_attention(attention)
    where = locate(model)
    local = isinstance(where, Path)
    folder = where if local else fetched_folder(where)
    warnings, doubt = check_files(folder, model, whole=local) if folder is not None else ([], None)
    if device == "auto" and place.type == "cpu" and (told := unused_gpu()) is not None:
        warnings.append(told)
    quantised = _quantised(folder, model, quantization_config, precision, place)
    tokenizer = _tokenizer(where, folder, model)
    try:
        with _quiet():
            network, found = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
                where,
                dtype=precision,
                **({} if attention is None else {"attn_implementation": attention}),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=local,
                ignore_mismatched_sizes=True,  # looked at below, where it can be said which
                output_loading_info=True,
                adapter_kwargs={"subfolder": _NO_ADAPTER},
                **quantised,
                # torch makes no embedding whose padding is none of its rows.
                **({"pad_token_id": None} if folder is not None and pads_outside(folder) else {}),
            )
    except _FAILURES as error:
        if doubt is not None and local:
            raise InputError(f"the model cannot be loaded: {doubt}", field="model") from error
        raise _unloadable(_reason(error), model) from error
    if folder is not None and not local:  # its weights have only come just now
        check_files(folder, model, whole=True)
    # transformers draws what the weights do not hold at random, and goes on.
    unfit = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    if unfit:
        raise _unloadable(f"{len(unfit)} tensors are missing or of another shape than its config says, such as {unfit[0]}", model)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise _unloadable("its tokenizer has neither a padding nor an end token", model)
        tokenizer.pad_token = tokenizer.eos_token
    end_tokens(getattr(network.generation_config, "eos_token_id", None))
    network.requires_grad_(False).eval()
    backbone = Backbone(network, tokenizer, NAME if model == EMBEDDED else model, tuple(warnings), folder, engine=engine)
    whole: dict[str, object] = {}
    tried = None
    if engine.moves_together:
        # The weights are whole for the last time, in the host's memory: no device may hold all of them.
        whole = {"fingerprint": backbone.fingerprint, "base": backbone.base}
        tried = trial_copy(network)
        shard(network, place, engine.world_size)
        nn.Module.to(tried, place)
    if not quantised:
        nn.Module.to(network, place)
    ready_to_train(network)
    use_tensor_cores(place, precision)
    _try_pass(network, model)
    tried = trial_copy(network) if tried is None else tried
    if not is_causal(tried):
        raise _unloadable("its outputs depend on later tokens, so it is not a causal language model", model)
    refuse_packed(backbone.linear_modules())
    speeds = switched_on(network, speed, tried)
    if attention not in (None, "sdpa"):
        speeds = speeds.without(Packing)  # which has an attention of its own
    backbone = replace(backbone, speed=speeds)
    vars(backbone).update(whole)
    return backbone


def _tokenizer(where: Path | str, folder: Path | None, model: str) -> PreTrainedTokenizerBase:
    """A model's tokenizer, which knows some text: transformers makes up an empty one where the vocabulary is missing."""
    from transformers import AutoTokenizer

    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, local_files_only=isinstance(where, Path))
    except _FAILURES as error:
        missing = folder is not None and lacks_tokenizer(folder)
        raise _unloadable(_NO_TOKENIZER if missing else _reason(error), model) from error
    if not set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids):
        raise _unloadable(_NO_TOKENIZER, model)
    return tokenizer


def _quantised(
    folder: Path | None, model: str, wanted: Quantization | None, dtype: torch.dtype, place: torch.device
) -> dict[str, object]:
    """What transformers is given to load a quantised model, onto its device at once; nothing for a plain one."""
    file = None if folder is None else folder / CONFIG
    stands = file is not None and file.is_file() and refuse_other_quantisers(read_json_object(file), file)
    if stands and wanted is not None:
        raise InputError(
            "the model is quantised already", field=QUANTISED, value=model, fix=f"Leave out {QUANTISED}, or give the model before"
        )
    if not stands and wanted is None:
        return {}
    found: dict[str, object] = {"device_map": {"": place}}
    return found if wanted is None else found | {QUANTISED: wanted.for_transformers(dtype)}


@torch.no_grad()
def is_causal(network: PreTrainedModel) -> bool:
    """Whether the first position's outputs ignore the second token. Right padding without a mask rests on it.

    Args:
        network: in float32 (`trial_copy`): what rounding does in half precision is as much as what an encoder's second token does.
    """
    logits_2TV = network(input_ids=torch.tensor([[0, 1], [0, 2]], device=network.device), use_cache=False).logits
    change = (logits_2TV[0, 0] - logits_2TV[1, 0]).abs().max()
    return bool(change <= 16 * torch.finfo(logits_2TV.dtype).eps * logits_2TV.abs().max())


@torch.no_grad()
def _try_pass(network: PreTrainedModel, model: str) -> None:
    """See that the model runs in its precision on its device: some have parts in float32 alone.

    Raises:
        InputError: it does not.
    """
    try:
        network(input_ids=torch.tensor([[0, 1]], device=network.device), use_cache=False)
    except _FAILURES as error:
        raise InputError(
            f"the model does not run in {str(network.dtype).removeprefix('torch.')} on {network.device.type}: {_reason(error)}",
            field="dtype",
            value=model,
            fix="Set dtype to float32, or use another model",
        ) from error


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    unknown = re.search(r"Unrecognized configuration class <class '.*\.(\w+)Config'>", first)
    return f"transformers has no causal language model for its architecture, {unknown[1]}" if unknown else first


def _unloadable(reason: str, model: str) -> InputError:
    return InputError(
        f"the model cannot be loaded: {reason}",
        field="model",
        value=model,
        fix="Give a folder with config.json, safetensors weights and a tokenizer, a hub id that can be reached, or `embedded`",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of what it loads, which takes many lines and comes before the one that counts."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def resolve_device(device: str) -> torch.device:
    """`auto` -> the accelerator that torch finds, or the CPU; a device's name -> that device.

    Raises:
        InputError: torch does not know the device, or does not have it.
    """
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError("no such device here", field="device", value=device, fix="Use auto, cpu, cuda or cuda:N") from error
    if place.index is not None and place.type != "cpu" and NATIVE.world_size > 1:
        raise InputError(
            "names one device for all processes, but each has its own", field="device", value=device, fix=f"Use {place.type}"
        )
    return place
