r"""PEFT's `adapter_config.json`: the fields that Pomona reads, refuses and writes.

PEFT looks up a module's rank and alpha by the first pattern `p`, in the file's order, for which
`re.match(rf"(.*\.)?({p})$", module)` succeeds, and uses `r` and `lora_alpha` if none does (peft 0.21, `get_pattern_key`).
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pomona.adapters.not_peft import refuse_mlx_config
from pomona.adapters.targets import ALL_LINEAR, Targets
from pomona.errors import InputError
from pomona.patterns import Expressions, check_expression
from pomona.plain_files import open_plain
from pomona.stand_ins import refuse_stand_in

T = TypeVar("T")

CONFIG_FILE = "adapter_config.json"

_AGAIN = "Copy the adapter again from its source"

_LARGEST_JSON = 2**26  # bytes; the index of a model of experts has some megabytes
_LARGEST_RANK = 10**6
_LARGEST_ALPHA = 3e38  # of fp32, in which the update is added
_BASE_CHANGING = re.compile(r"pissa.*|olora|corda|loftq|lora_ga")
_PEFT_DEFAULT = 8  # PEFT's default of `r` and `lora_alpha`
# Variants with an effect only in training: field -> the part of a key that marks their tensors.
_TRAINING_ONLY: Mapping[str, str] = {"velora_config": ".lora_velora_", "monteclora_config": ".lora_monteclora_sampler"}
_TASK_TYPES = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")

_CONVERT = "pomona convert INPUT --base BASE --rank R --output DIR"
_MERGED = f"Or merge it into its base with PEFT's merge_and_unload, and give that model to {_CONVERT}"

# field -> (whether a plain sum of low-rank updates cannot represent this value, the meaning, the fix)
_REFUSED: Mapping[str, tuple[Callable[[object], bool], str, str]] = {
    "use_dora": (
        bool,
        "DoRA rescales the base weight, so the adapter is not a low-rank update",
        f"Approximate it by one: {_CONVERT}",
    ),
    "bias": (
        lambda v: v not in (None, "none"),
        "the adapter changes biases, which a merge would lose",
        f'Train it again with bias "none". {_MERGED}',
    ),
    "lora_bias": (
        bool,
        "the adapter has biases in lora_B, which a merge would lose",
        f"Train it again with lora_bias false. {_MERGED}",
    ),
    "trainable_token_indices": (
        bool,
        "the adapter brings token embeddings, which cannot be merged as factors",
        "Train it again without them",
    ),
    "init_lora_weights": (
        lambda v: isinstance(v, str) and _BASE_CHANGING.fullmatch(v) is not None,
        "this initialisation changes the base model, so the factors are not its update",
        f"Convert it with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...). {_MERGED}",
    ),
    "alora_invocation_tokens": (bool, "an activated LoRA works on some tokens only and cannot be merged", "Train a plain LoRA"),
    "layer_replication": (bool, "the adapter is for a model with replicated layers", "Train it on the base model as it is"),
    "use_qalora": (bool, "QALoRA pools the input, so A does not have the module's shape", "Train a plain LoRA"),
    "use_bdlora": (bool, "block-diagonal LoRA keeps its factors in another shape", "Train a plain LoRA"),
    "kasa_config": (bool, "KaSA changes the base weight and has a diagonal between the factors", "Train a plain LoRA"),
    "arrow_config": (
        bool,
        "an arrow router chooses adapters for each token and cannot be merged",
        "Give the adapters that it routes between",
    ),
}


@dataclass(frozen=True)
class LoraConfig:
    """The fields of `adapter_config.json` that the factors need; unknown fields are accepted.

    Args:
        r: rank if no pattern matches, >= 1.
        lora_alpha: alpha if no pattern matches.
        use_rslora: scaling is `alpha / sqrt(r)` instead of `alpha / r`.
        rank_pattern, alpha_pattern: regular expression -> rank or alpha, in the file's order.
        fan_in_fan_out: the base stores these weights as [I, O] (GPT-2's Conv1D); the factors are still [R, I] and [O, R].
        base_model: `base_model_name_or_path`.
        targets: the modules that PEFT adapts.
        target_parameters: the bare parameters that PEFT adapts: paths or their last parts.
        ensure_weight_tying: if the base ties its head to the embedding, an embedding's factors also apply to the head, and the
            file has them under both names.
        kept: fields that affect only how PEFT loads the factors, and are written again: `task_type`, and `revision` and
            `auto_mapping` if present.
        modules_to_save: the modules with full tensors in the file, by the ends of their paths.
        names_rank: whether the config has `r`; otherwise PEFT's default is used.
        training_only: parts of the keys of tensors with an effect only in training.
        doubts: possible mistakes, a sentence each.
    """

    r: int
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    fan_in_fan_out: bool = False
    base_model: str | None = None
    targets: Targets = field(default_factory=Targets)
    ensure_weight_tying: bool = False
    kept: Mapping[str, object] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    names_rank: bool = True
    training_only: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] = ()

    def rank(self, module: str) -> int:
        """The rank that the config gives a module."""
        return _value(self.rank_pattern, self._ranks.first(module), self.r)

    def scaling(self, module: str) -> float:
        """`alpha / r`, or `alpha / sqrt(r)` for rsLoRA, of a module."""
        rank = self.rank(module)
        alpha = _value(self.alpha_pattern, self._alphas.first(module), self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def warnings(self, modules: Iterable[str]) -> list[str]:
        """Possible mistakes, including patterns that match none of these modules and so have no effect."""
        known = list(modules)
        found = list(self.doubts)
        for name, patterns, expressions in (
            ("rank_pattern", self.rank_pattern, self._ranks),
            ("alpha_pattern", self.alpha_pattern, self._alphas),
        ):
            unused = [list(patterns)[place] for place in expressions.prepare(known)]
            if unused:
                more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
                found.append(f"{name}: {', '.join(unused[:3])}{more} match no adapted module and are ignored, as in PEFT")
        return found

    def prepare(self, modules: Iterable[str]) -> None:
        """Match the patterns with many modules at once; `rank` and `scaling` are then quick.

        Raises:
            InputError: it takes too long.
        """
        known = list(modules)
        self._ranks.prepare(known)
        self._alphas.prepare(known)

    @functools.cached_property
    def _ranks(self) -> Expressions:
        return Expressions(map(_in_peft, self.rank_pattern), "rank_pattern")

    @functools.cached_property
    def _alphas(self) -> Expressions:
        return Expressions(map(_in_peft, self.alpha_pattern), "alpha_pattern")


def read_config(file: Path) -> LoraConfig:
    """Read and check `adapter_config.json`.

    Raises:
        InputError: the file cannot be read, is not a JSON object, is not a LoRA's, has a field of the wrong kind, or names a
            feature that a low-rank update cannot represent.
    """
    raw = read_json_object(file)
    refuse_mlx_config(raw, file)
    peft_type = raw.get("peft_type")
    if peft_type != "LORA":
        raise InputError(
            "not a LoRA adapter",
            file=file,
            field="peft_type",
            value=peft_type,
            fix=f"Give an adapter of peft_type LORA. {_MERGED}",
        )
    for name, (refused, problem, fix) in _REFUSED.items():
        if refused(raw.get(name)):
            raise InputError(problem, file=file, field=name, value=raw[name], fix=fix)
    return LoraConfig(
        r=_rank(raw.get("r", _PEFT_DEFAULT), file, "r"),
        lora_alpha=_alpha(raw.get("lora_alpha", _PEFT_DEFAULT), file, "lora_alpha"),
        use_rslora=_flag(raw, "use_rslora", file),
        rank_pattern={p: _rank(v, file, f"rank_pattern.{p}") for p, v in _patterns(raw, "rank_pattern", file).items()},
        alpha_pattern={p: _alpha(v, file, f"alpha_pattern.{p}") for p, v in _patterns(raw, "alpha_pattern", file).items()},
        fan_in_fan_out=_flag(raw, "fan_in_fan_out", file),
        base_model=_text(raw.get("base_model_name_or_path"), file, "base_model_name_or_path"),
        targets=_targets(raw, file),
        ensure_weight_tying=_flag(raw, "ensure_weight_tying", file),
        kept=_kept(raw, file),
        modules_to_save=_names(raw, "modules_to_save", file),
        names_rank="r" in raw,
        training_only=tuple(part for name, part in _TRAINING_ONLY.items() if raw.get(name)),
        doubts=tuple(_doubts(raw)),
        target_parameters=_parameters(raw, file),
    )


def plain_config(
    rank: int,
    modules: tuple[str, ...],
    *,
    base_model: str | None,
    fan_in_fan_out: bool,
    parameters: tuple[str, ...] = (),
    provenance: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, object]:
    """The config of an exported adapter: one rank, scaling 1, no patterns.

    `target_modules` are full module paths, because a suffix (`q_proj`) would also match layers that are not adapted.

    Args:
        rank: the one rank, >= 1.
        modules: the adapted modules' paths.
        base_model: name or path of the base model, if known.
        fan_in_fan_out: the base stores these weights as [I, O].
        parameters: the adapted bare parameters' paths.
        provenance: provenance of the adapter; its fields of `LoraConfig.kept` and its `modules_to_save` are written. The default
            task is that of a causal model.
    """
    config: dict[str, object] = {
        **{name: value for name in ("revision", "auto_mapping", "modules_to_save") if (value := provenance.get(name))},
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(modules),
        "task_type": provenance.get("task_type", "CAUSAL_LM"),
    }
    return {**config, "target_parameters": sorted(parameters)} if parameters else config


def read_json_object(file: Path) -> dict[str, object]:
    """A file's JSON object.

    Raises:
        InputError: the file cannot be read, or is not a JSON object in UTF-8.
    """
    try:
        with open_plain(file) as stream:
            content = stream.read(_LARGEST_JSON + 1)
        refuse_stand_in(file, content[:64].removeprefix(b"\xef\xbb\xbf"))
        if len(content) > _LARGEST_JSON:
            raise InputError(f"has more than {_LARGEST_JSON:,} bytes, which no config has", file=file, fix=_AGAIN)
        raw = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_unique)  # some editors begin with a byte-order mark
        json.dumps(raw, ensure_ascii=False).encode()  # half a surrogate pair, written as \ud800, could never be printed
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=file) from error
    except UnicodeError as error:
        raise InputError("is not UTF-8 text", file=file, fix=_AGAIN) from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise InputError(f"is not JSON: {error}", file=file, fix=_AGAIN) from error
    if not isinstance(raw, dict):
        raise InputError("is not a JSON object", file=file, value=raw, fix=_AGAIN)
    return raw


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {twice[:40]!r} is given twice")
    return found


def _value(patterns: Mapping[str, T], place: int | None, default: T) -> T:
    return default if place is None else list(patterns.values())[place]


def _in_peft(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _kept(raw: Mapping[str, object], file: Path) -> dict[str, object]:
    task = _text(raw.get("task_type"), file, "task_type")
    kept: dict[str, object] = {"task_type": task if task in _TASK_TYPES else None}
    if revision := _text(raw.get("revision"), file, "revision"):
        kept["revision"] = revision
    mapping = raw.get("auto_mapping")
    # PEFT uses it only without a task. For a model that was adapted before, it names PEFT's class instead of a base model.
    if task is None and isinstance(mapping, dict) and mapping and not str(mapping.get("parent_library")).startswith("peft"):
        kept["auto_mapping"] = mapping
    return kept


def _doubts(raw: Mapping[str, object]) -> list[str]:
    found = [f"{name} is missing and is taken as {_PEFT_DEFAULT}, as PEFT does" for name in ("r", "lora_alpha") if name not in raw]
    if (task := raw.get("task_type")) and task not in _TASK_TYPES:
        found.append(f"task_type {task!r} is no task that PEFT knows, and is left out of what is written")
    found += [
        f"{name} works in training only: the adapter is read as the plain LoRA that it is in use"
        for name in _TRAINING_ONLY
        if raw.get(name)
    ]
    if raw.get("megatron_config"):
        found.append(
            "megatron_config: the adapter was trained on Megatron's layers, and its factors are whole only if that was without "
            "tensor parallelism"
        )
    return found


def _targets(raw: Mapping[str, object], file: Path) -> Targets:
    modules = _modules(raw, "target_modules", file)
    exclude = _modules(raw, "exclude_modules", file)
    layers = raw.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) and not isinstance(layers, bool) else layers or None
    if layers is not None and not (isinstance(layers, list) and all(type(layer) is int for layer in layers)):
        raise InputError("is not a list of layer numbers", file=file, field="layers_to_transform", value=layers)
    patterns = raw.get("layers_pattern") or []
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list):
        raise InputError("is not a list of names", file=file, field="layers_pattern", value=patterns)
    for pattern in patterns:
        _check_expression(pattern, file, "layers_pattern")
    return Targets(modules, () if exclude is None else exclude, None if layers is None else frozenset(layers), tuple(patterns))


def _parameters(raw: Mapping[str, object], file: Path) -> tuple[str, ...]:
    value = raw.get("target_parameters") or []
    if not isinstance(value, list) or not all(isinstance(one, str) and one.isprintable() and one for one in value):
        raise InputError("is not a list of parameter names", file=file, field="target_parameters", value=value)
    if value and _flag(raw, "fan_in_fan_out", file):
        problem = "PEFT has no LoRA on bare parameters where it is true"
        raise InputError(problem, file=file, field="fan_in_fan_out", value=True, fix="Set it to false")
    return tuple(dict.fromkeys(value))


def _modules(raw: Mapping[str, object], name: str, file: Path) -> frozenset[str] | str | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        if value.lower() != ALL_LINEAR:
            _check_expression(value, file, name)
        return value
    if not isinstance(value, list) or not all(isinstance(one, str) and one.isprintable() for one in value):
        raise InputError("is neither a list of module names nor a regular expression", file=file, field=name, value=value)
    return frozenset(value)


def _patterns(raw: Mapping[str, object], name: str, file: Path) -> dict[str, object]:
    patterns = raw.get(name)
    if patterns is None:
        return {}
    if not isinstance(patterns, dict):
        raise InputError("is not a map of module pattern to number", file=file, field=name, value=patterns)
    for pattern in patterns:
        _check_expression(pattern, file, name, _in_peft(str(pattern)))
    return patterns


def _check_expression(pattern: object, file: Path, name: str, whole: str | None = None) -> None:
    """Raise if the pattern is not a regular expression, alone or within PEFT's `whole` expression."""
    problem = check_expression(pattern) or (check_expression(whole) if whole is not None else None)
    if problem is not None:
        raise InputError(problem, file=file, field=name, value=pattern)


def _names(raw: Mapping[str, object], name: str, file: Path) -> tuple[str, ...]:
    value = raw.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) and one and one.isprintable() for one in value):
        raise InputError("is not a list of module names", file=file, field=name, value=value)
    return tuple(value)


def _flag(raw: Mapping[str, object], name: str, file: Path) -> bool:
    value = raw.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError("must be true or false", file=file, field=name, value=value)
    return bool(value)


def _rank(value: object, file: Path, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_RANK:
        raise InputError(f"the rank must be a whole number from 1 to {_LARGEST_RANK}", file=file, field=name, value=value)
    return value


def _alpha(value: object, file: Path, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST_ALPHA:
        raise InputError("alpha must be a finite number", file=file, field=name, value=value)
    return value


def _text(value: object, file: Path, name: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.isprintable()):
        raise InputError("must be text", file=file, field=name, value=value)
    return value or None
