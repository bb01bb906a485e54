"""The weight differences of a fine-tuned model from its base: the kind of each tensor, and which tensors changed.

Axes: O output features, I input features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.base_modules import BaseModules
from pomona.adapters.convert.result import Dropped
from pomona.adapters.convert.weights import CONV1D, as_matrix, check_float, tied_embedding
from pomona.adapters.export.base import CONFIG
from pomona.adapters.export.base_folder import BaseFolder
from pomona.adapters.export.checkpoint import Stored
from pomona.adapters.model_order import model_order
from pomona.adapters.names import EMBEDDINGS, HEADS, last_part
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError, suggest

Kind = Literal["linear", "transposed", "embedding"]
"""How a module uses its weight: `x W^T` with [O, I], `x W` with [I, O], or a lookup of rows of [vocabulary, hidden]."""
_KINDS: Mapping[str, Kind] = {"linear": "linear", "conv1d": "transposed", "embedding": "embedding"}

DROPS = ("other", "embeddings", "head")
"""Kinds of tensors that may be left out: those of no linear module, token embeddings, the output head."""

_SHOWN = 5
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_TASKS = {
    **dict.fromkeys(_GENERATES, "CAUSAL_LM"),
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
# Last path components of matrices that do not belong to a linear module: positions, token types, routers of experts.
_TABLES = re.compile(r"wpe|position_embeddings?|embed_positions?|token_type_embeddings?|relative_attention_bias|router|gate")
_EXPERT = re.compile(r".*\.experts\.\d+\.\w+")
# Constants that a model computes itself; only some files contain them.
_COMPUTED = re.compile(r"(?:.*\.)?(?:rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias|attention\.(?:masked_)?bias|position_ids)")
# Prefixes of tensor names in files saved without the head, where the prefix of the whole model is missing.
_HEADLESS = ("h.", "layers.", "wte.", "word_embeddings.", "embed_tokens.")


@dataclass(frozen=True)
class Changed:
    """A module whose weight may differ between the two models.

    Args:
        kind: how the module uses its weight.
        tuned, base: the locations of both weights.
    """

    kind: Kind
    tuned: Stored
    base: Stored


@dataclass(frozen=True)
class Plan:
    """The parts of a model's difference from its base.

    Args:
        modules: modules that can become factors -> their weights, in the model's order.
        dropped: tensors that differ and are left out, the largest change first.
    """

    modules: Mapping[str, Changed]
    dropped: tuple[Dropped, ...]


def kinds_of(base: BaseModules) -> dict[str, Kind]:
    """Path -> kind of each module of a base that a LoRA can adapt."""
    return {path: _KINDS[module.kind] for path, module in base.modules.items() if module.kind in _KINDS}


def plan_difference(
    tuned: BaseFolder, base: BaseFolder, kinds: Mapping[str, Kind] | None, drop: Collection[str], *, partial: bool = False
) -> Plan:
    """Pair the tensors of both models by name, and check that no change is lost silently.

    Args:
        tuned: the fine-tuned model.
        base: the model that it was tuned from.
        kinds: every linear module and embedding of the model, by path; None: inferred from the tensors' names.
        drop: the kinds in `DROPS` that may be left out.
        partial: whether a tensor that `tuned` lacks counts as unchanged instead of missing.

    Raises:
        InputError: architectures, names or shapes differ, a weight is not float, or a change would be lost.
    """
    for one in drop:
        if one not in DROPS:
            raise InputError("cannot be left out", field="--drop", value=one, fix=suggest(one, DROPS))
    _check_configs(tuned, base)
    modules: dict[str, Changed] = {}
    others: list[Dropped] = []
    dropped: list[Dropped] = []
    for name, (new, old) in _pairs(tuned, base, kinds, partial=partial).items():
        path = _path(name, kinds, tuned)
        kind = _kind(path, name, new, kinds, base.config.get("model_type"))
        group = "embeddings" if kind == "embedding" else "head" if kind and last_part(path) in HEADS else "other"
        if new.shape != old.shape and group not in drop:
            raise _shape_error(name, kind, new, old)
        if kind is not None and (group == "other" or group not in drop):
            check_float(new, name)
            check_float(old, name)
            modules[path] = Changed(kind, new, old)
        elif (change := _change(new, old)) != 0:
            (dropped if group in drop else others).append(Dropped(name, change))
    if others:
        raise _lost(_by_change(others), tuned)
    if not modules:
        raise InputError("has no linear module in common with the base model", file=tuned.folder)
    return Plan({module: modules[module] for module in sorted(modules, key=model_order)}, _by_change(dropped))


def differences(plan: Plan) -> Iterator[tuple[str, Float[Tensor, "O I"]]]:
    """The difference of each module, one at a time: computed in fp64 by blocks of rows, stored in fp32."""
    for module, one in plan.modules.items():
        delta = torch.empty(one.tuned.shape, dtype=torch.float32)
        for (first, new), (_, old) in zip(one.tuned.row_blocks(), one.base.row_blocks(), strict=True):
            delta[first : first + len(new)] = new.double() - old.double()
        yield module, delta if one.kind == "linear" else delta.T


def task_of(config: Mapping[str, object]) -> str | None:
    """PEFT's name for the task of a model's class; None if PEFT has no name for it."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if config.get("is_encoder_decoder") and name.endswith("ForConditionalGeneration"):
        return "SEQ_2_SEQ_LM"
    return next((task for end, task in _TASKS.items() if name.endswith(end)), None)


def _check_configs(tuned: BaseFolder, base: BaseFolder) -> None:
    kinds = [one.config.get("model_type") for one in (tuned, base)]
    if kinds[0] != kinds[1]:
        problem = f"the architecture is not that of the base model, {kinds[1]!r}"
        raise InputError(problem, file=tuned.folder / CONFIG, field="model_type", value=kinds[0], fix="Give its own base model")


def _pairs(
    tuned: BaseFolder, base: BaseFolder, kinds: Mapping[str, Kind] | None, *, partial: bool
) -> dict[str, tuple[Stored, Stored]]:
    """Pairs of tensors under the longer of their two names: one model may have been saved without the first part of the name."""
    new, old = tuned.checkpoint.tensors, base.checkpoint.tensors
    longer, shorter = _by_shortened(old), _by_shortened(new)
    pairs: dict[str, tuple[Stored, Stored]] = {}
    left = dict.fromkeys(old)
    missing: list[str] = []
    for name, stored in new.items():
        # A shortened name counts only if it is unique: two towers of a model may have layers with equal names.
        cut = _shortened(name)
        spellings = (name, *longer.get(name, ()), *([cut] if shorter[cut] == [name] and cut not in new else []))
        found = [one for one in spellings if one in old]
        other = found[0] if found and (found[0] == name or len(found) == 1) else None
        if other is not None:
            pairs[max(name, other, key=len)] = (stored, old[other])
            left.pop(other, None)
        elif _is_head(name) and (tied := tied_embedding(base.checkpoint)):
            pairs[name] = (stored, old[tied])
        elif not _COMPUTED.fullmatch(name):
            missing.append(name)
    if missing:
        raise _unpaired(missing, tuned, "the base model does not have")
    for name in left:
        if _is_head(name) and not partial and (tied := tied_embedding(tuned.checkpoint)):
            pairs[name] = (new[tied], old[name])
        elif not partial and not _COMPUTED.fullmatch(name):
            missing.append(name)
    if missing:
        raise _unpaired(missing, base, "the tuned model does not have")
    return {**pairs, **_tied_head(pairs, tuned, base, kinds)}


def _tied_head(
    pairs: Mapping[str, tuple[Stored, Stored]], tuned: BaseFolder, base: BaseFolder, kinds: Mapping[str, Kind] | None
) -> dict[str, tuple[Stored, Stored]]:
    """The head if neither file has one: it is tied to the embedding and changes with it. As factors they are two modules."""
    new, old = tied_embedding(tuned.checkpoint), tied_embedding(base.checkpoint)
    if new is None or old is None or any(map(_is_head, pairs)):
        return {}
    if kinds is not None:
        head = next((path for path in kinds if last_part(path) in HEADS), None)
    else:
        names = base.config.get("architectures")
        head = "lm_head" if isinstance(names, list) and names and str(names[0]).endswith(_GENERATES) else None
    return {} if head is None else {f"{head}.weight": (tuned.checkpoint.tensors[new], base.checkpoint.tensors[old])}


def _path(name: str, kinds: Mapping[str, Kind] | None, tuned: BaseFolder) -> str:
    """The module's path in the model, which may have a prefix that is missing in the files."""
    path = name.removesuffix(".weight")
    if kinds is None:
        if name.startswith(_HEADLESS):
            fix = "Save the tuned model with transformers' save_pretrained, as a model with its head"
            raise InputError(
                "has no path in the whole model: the files were saved without its head", file=tuned.folder, field=name, fix=fix
            )
        return path
    if path in kinds:
        return path
    longer = [known for known in kinds if known.endswith(f".{path}")]
    return longer[0] if len(longer) == 1 else path


def _kind(path: str, name: str, stored: Stored, kinds: Mapping[str, Kind] | None, model_type: object) -> Kind | None:
    """The kind of a module; None if the tensor is not the matrix of a module."""
    if not name.endswith(".weight") or len(stored.shape) != 2 or 0 in stored.shape:
        return None
    expert = _EXPERT.fullmatch(path) is not None
    if kinds is not None:
        return "linear" if expert else kinds.get(path)
    last = last_part(path)
    if last in EMBEDDINGS:
        return "embedding"
    if last in HEADS or expert:
        return "linear"
    if _TABLES.fullmatch(last):
        return None
    return "transposed" if model_type in CONV1D else "linear"


def _change(new: Stored, old: Stored) -> float | None:
    """`||new - old|| / ||old||`; infinite if the base's tensor is zero, None if the difference is not defined."""
    if new.shape != old.shape or {new.dtype, old.dtype} - DTYPES.keys():
        same = new.shape == old.shape and new.dtype == old.dtype and all(map(bytes.__eq__, new.pieces(), old.pieces()))
        return 0.0 if same else None
    if 0 in new.shape:
        return 0.0
    lost = whole = 0.0
    for (_, one), (_, other) in zip(as_matrix(new).row_blocks(), as_matrix(old).row_blocks(), strict=True):
        lost += float((one.double() - other.double()).square().sum())
        whole += float(other.double().square().sum())
    return 0.0 if lost == 0 else math.sqrt(lost / whole) if whole else math.inf


def _lost(others: tuple[Dropped, ...], tuned: BaseFolder) -> InputError:
    shown = ", ".join(f"{one.name} ({_said(one.change)})" for one in others[:_SHOWN])
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    problem = (
        f"{len(others)} tensors outside linear modules differ from the base's, and factors cannot represent them: {shown}{more}"
    )
    return InputError(problem, file=tuned.folder, fix="Give --drop other to leave them out")


def _said(change: float | None) -> str:
    return "it differs" if change is None else "from zero" if math.isinf(change) else f"by {100 * change:.2g} %"


def _shape_error(name: str, kind: Kind | None, new: Stored, old: Stored) -> InputError:
    shapes = f"is {' x '.join(map(str, new.shape))}, and the base's {' x '.join(map(str, old.shape))}"
    if kind is not None and new.shape[1:] == old.shape[1:] and (kind == "embedding" or _is_head(name)):
        problem = f"{shapes}: the vocabulary was resized, and new rows are not an update of the base's"
        fix = "Give a base that was resized in the same way, or leave both out with --drop embeddings --drop head"
        return InputError(problem, file=new.file, field=name, fix=fix)
    return InputError(shapes, file=new.file, field=name, fix="Give the model that it was tuned from with --base")


def _unpaired(names: list[str], where: BaseFolder, problem: str) -> InputError:
    shown = ", ".join(sorted(names)[:3])
    return InputError(
        f"has {len(names)} tensors that {problem}: {shown}",
        file=where.folder,
        fix="Give the model that it was tuned from with --base",
    )


def _by_change(found: list[Dropped]) -> tuple[Dropped, ...]:
    return tuple(sorted(found, key=lambda one: math.inf if one.change is None else one.change, reverse=True))


def _is_head(name: str) -> bool:
    return last_part(name.removesuffix(".weight")) in HEADS


def _by_shortened(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_shortened(name), []).append(name)
    return found


def _shortened(name: str) -> str:
    return name.partition(".")[2]
