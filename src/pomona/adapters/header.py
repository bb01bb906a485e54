"""Check of the header of an adapter's safetensors file: pairs of factors, and no tensor that a merge would lose.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE, LoraConfig
from pomona.adapters.keys import PREFIX, FactorKey, copied_module, is_name, is_original, parse_key, parse_whole
from pomona.adapters.model_order import model_order
from pomona.adapters.stacks import InFile, Stack, find_stacks
from pomona.adapters.targets import HEAD
from pomona.adapters.tensors import DTYPES, TensorFile, TensorInfo
from pomona.errors import InputError

_AGAIN = "Copy the adapter again from its source"
_MOST_MODULES = 100_000  # the largest models of single experts have some 70,000
_BARE = "Save the adapter from the bare model, with PEFT's save_pretrained"
_CONVERT = "If it is a DoRA, approximate it: pomona convert INPUT --base BASE --rank R --output DIR"
# Part of a key -> (why a tensor of this name is refused, what to do)
_REFUSED_KEYS: Mapping[str, tuple[str, str]] = {
    ".lora_magnitude_vector": ("a DoRA magnitude: the adapter is not a low-rank update", _CONVERT),
    ".lora_B.bias": ("a bias of lora_B, which a merge would lose", "Train it again with lora_bias false"),
    ".lora_a": ("a factor of mlx-lm, which is transposed", "Convert the adapter's folder: pomona convert FOLDER --output DIR"),
    ".lora_b": ("a factor of mlx-lm, which is transposed", "Convert the adapter's folder: pomona convert FOLDER --output DIR"),
    ".lora_": ("a tensor that is no lora_A.weight or lora_B.weight", "Save the adapter with PEFT's save_pretrained"),
}
_NO_FACTOR = ("neither a LoRA factor nor a weight that PEFT would load", "Save the adapter with PEFT's save_pretrained")
_BESIDE_FACTORS = (
    "a weight of the model itself, of a module that has factors too: what they were trained on is another base model",
    "Train without modules_to_save and bias, and save with save_embedding_layers false",
)


@dataclass(frozen=True)
class Pair:
    """A module's factors in the file.

    Args:
        A, B: the keys of the factors.
        embedding: whether the module is an embedding.
        trained_as: the path for the config's patterns: of the module, or of the parameter if it is adapted as a bare parameter.
        parameter: whether the pair is of a bare parameter, or of one of its experts.
    """

    A: str
    B: str
    embedding: bool
    trained_as: str
    parameter: bool = False


@dataclass(frozen=True)
class Header:
    """The content of a valid header.

    Args:
        pairs: module -> its factors, in the model's order.
        copies: the modules with copies of their frozen weights in the file.
        whole: parameter -> key of the full tensor that replaces it, in the model's order.
        warnings: differences of the keys from PEFT's, a sentence each.
    """

    pairs: Mapping[str, Pair]
    copies: Sequence[str]
    whole: Mapping[str, str]
    warnings: Sequence[str]


def check_header(tensors: TensorFile, config: LoraConfig) -> Header:
    """Check every tensor's name, shape and dtype, and the ranks against the config's. Reads no tensors.

    Raises:
        InputError: a tensor is not part of a pair of factors; a pair is inconsistent, also with the config; two tensors are the
            same factor; the file has several adapters.
    """
    if len(tensors.info) > 2 * _MOST_MODULES:
        problem = f"holds {len(tensors.info):,} tensors: no model has more than {_MOST_MODULES:,} linear modules"
        raise InputError(problem, file=tensors.file, fix=_AGAIN)
    parsed: dict[str, FactorKey] = {}
    others: list[str] = []
    for key, info in tensors.info.items():
        if not is_name(key):
            raise InputError("a tensor's name is none that torch gives", file=tensors.file, value=key, fix=_AGAIN)
        factor = parse_key(key, wrapped=bool(config.target_parameters))
        if factor is not None:
            _check_matrix(key, info, tensors.file)
            parsed[key] = factor
        elif not is_original(key) and not any(part in key for part in config.training_only):
            others.append(key)
    pairs = _pairs(parsed, tensors.file)
    copies = {module: key for key in others if (module := _copied(key, pairs)) is not None}
    unsorted = {_whole(key, pairs, parsed, tensors): key for key in others if key not in copies.values()}
    if not pairs:
        raise InputError("holds no LoRA tensors", file=tensors.file, fix="Save the adapter with PEFT's save_pretrained")
    config.prepare(pair.trained_as for pair in pairs.values())
    stacks = find_stacks({module: _in_file(tensors, pair) for module, pair in pairs.items()}, config, tensors.file)
    for module, pair in pairs.items():
        _check_pair(tensors, module, pair, None if module in stacks else config)
    for module, key in copies.items():
        _check_copy(key, tensors, pairs[module])
    entries: dict[str, Pair] = {}
    for module, pair in pairs.items():
        entries |= _entries(pair, stacks[module]) if module in stacks else {module: pair}
    in_order = {module: entries[module] for module in sorted(entries, key=model_order)}
    whole = {parameter: unsorted[parameter] for parameter in sorted(unsorted, key=model_order)}
    return Header(in_order, sorted(copies, key=model_order), whole, _warnings(parsed.values()))


def _check_matrix(key: str, info: TensorInfo, file: Path) -> None:
    if len(info.shape) != 2 or 0 in info.shape:
        raise InputError("is not a matrix", file=file, field=key, value=info.shape, fix="Only linear modules can be merged")
    if info.dtype not in DTYPES:
        raise InputError("has a dtype that is not fp32, fp16 or bf16", file=file, field=key, value=info.dtype)


def _pairs(parsed: Mapping[str, FactorKey], file: Path) -> dict[str, Pair]:
    """The keys module by module."""
    first = next(iter(parsed.items()), None)
    sides: dict[str, dict[str, str]] = {}
    for key, factor in parsed.items():
        if first is not None and factor.adapter != first[1].adapter:
            names = " and ".join(sorted(repr(name or "without a name") for name in (factor.adapter, first[1].adapter)))
            problem = f"holds the factors of several adapters, {names}"
            raise InputError(problem, file=file, field=key, fix="Save each adapter into a folder of its own")
        if first is not None and factor.prefix != first[1].prefix:
            problem = f"starts with {factor.prefix!r}, but {first[0]} with {first[1].prefix!r}: PEFT would apply one kind only"
            raise InputError(problem, file=file, field=key, fix=_BARE)
        pair = sides.setdefault(factor.module, {})
        if factor.side in pair:
            before = parsed[pair[factor.side]]
            if before.embedding != factor.embedding:
                problem = "has the factors of a linear module and of an embedding"
                raise InputError(problem, file=file, field=factor.module, fix=_AGAIN)
            problem = f"is the same factor as {pair[factor.side]}, of {factor.module}"
            raise InputError(problem, file=file, field=key, fix=_BARE)
        pair[factor.side] = key
    return {module: _pair(module, pair, parsed, file) for module, pair in sides.items()}


def _pair(module: str, keys: Mapping[str, str], parsed: Mapping[str, FactorKey], file: Path) -> Pair:
    one = parsed[next(iter(keys.values()))]
    for present, missing in (("A", "B"), ("B", "A")):
        if missing not in keys:
            kind = "lora_embedding" if one.embedding else "lora"
            problem = f"has {kind}_{present} but no {kind}_{missing}"
            raise InputError(problem, file=file, field=module, fix="Save the adapter again")
    if parsed[keys["A"]].embedding != parsed[keys["B"]].embedding:
        raise InputError("has the factors of a linear module and of an embedding", file=file, field=module, fix=_AGAIN)
    return Pair(keys["A"], keys["B"], one.embedding, one.trained_as)


def _copied(key: str, pairs: Mapping[str, Pair]) -> str | None:
    """The adapted embedding or head whose frozen weight this tensor copies; None for any other tensor.

    PEFT names it with `base_layer`; before version 0.7 without.
    """
    module = copied_module(key)
    if module is None and (found := parse_whole(key)) is not None:
        module = found[1].removesuffix(".weight")
    if module is None or module not in pairs:
        return None
    return module if pairs[module].embedding or module.rpartition(".")[2] == HEAD else None


def _whole(key: str, pairs: Mapping[str, Pair], parsed: Mapping[str, FactorKey], tensors: TensorFile) -> str:
    """The parameter that this tensor replaces; any other tensor that is not a factor is refused."""
    found = parse_whole(key)
    refused = next((reason for part, reason in _REFUSED_KEYS.items() if part in key), None)
    if refused is None and found is not None and (found[1].rpartition(".")[0] in pairs or ".base_layer." in key):
        refused = _BESIDE_FACTORS
    if refused is not None or found is None:
        problem, fix = refused or _NO_FACTOR
        raise InputError(problem, file=tensors.file, field=key, fix=fix)
    first = next(iter(parsed.items()), None)
    if first is not None and found[0] != first[1].prefix:
        problem = f"starts with {found[0]!r}, but {first[0]} with {first[1].prefix!r}: PEFT would apply one kind only"
        raise InputError(problem, file=tensors.file, field=key, fix=_BARE)
    if tensors.info[key].dtype not in DTYPES:
        raise InputError("has a dtype that is not fp32, fp16 or bf16", file=tensors.file, field=key, value=tensors.info[key].dtype)
    return found[1]


def _check_copy(key: str, tensors: TensorFile, pair: Pair) -> None:
    O, I = tensors.info[pair.B].shape[0], tensors.info[pair.A].shape[1]  # noqa: E741 (axes)
    expected = (I, O) if pair.embedding else (O, I)
    if tensors.info[key].shape != expected:
        problem = f"the copied weight is not {expected[0]} x {expected[1]} as the factors are"
        fix = "Use the adapter as it was before the vocabulary was resized"
        raise InputError(problem, file=tensors.file, field=key, value=tensors.info[key].shape, fix=fix)


def _in_file(tensors: TensorFile, pair: Pair) -> InFile:
    return InFile(pair.trained_as, tensors.info[pair.A].shape, tensors.info[pair.B].shape)


def _entries(pair: Pair, stack: Stack) -> dict[str, Pair]:
    return dict.fromkeys(stack.entries(), Pair(pair.A, pair.B, False, stack.trained_as, parameter=True))


def _check_pair(tensors: TensorFile, module: str, pair: Pair, config: LoraConfig | None) -> None:
    """Check that A and B fit each other, and the config's rank if it is given."""
    kind = "lora_embedding" if pair.embedding else "lora"
    a_shape, b_shape = tensors.info[pair.A].shape, tensors.info[pair.B].shape
    if a_shape[0] != b_shape[1]:
        problem = f"{kind}_A {a_shape} and {kind}_B {b_shape} are not [r, in] and [out, r]"
        raise InputError(problem, file=tensors.file, field=module, fix="Save the adapter again")
    if config is not None and a_shape[0] != (rank := config.rank(pair.trained_as)):
        says = f"says {rank}" if config.names_rank else f"has no r, for which PEFT takes {rank}"
        problem = f"has rank {a_shape[0]}, but {CONFIG_FILE} {says}"
        raise InputError(problem, file=tensors.file, field=module, fix="Correct r or rank_pattern in the config")


def _warnings(factors: Iterable[FactorKey]) -> list[str]:
    """Differences of the keys from PEFT's for the bare model, because of which PEFT ignores the tensors without an error."""
    found = list(factors)
    prefix, adapter = found[0].prefix, found[0].adapter
    wrappers = sorted(frozenset[str]().union(*(factor.wrappers for factor in found)))
    warnings = []
    if prefix != PREFIX:
        begin = f"start with {prefix!r} instead of {PREFIX!r}" if prefix else f"lack {PREFIX!r}"
        warnings.append(f"the keys {begin}, so PEFT would apply none of them; Pomona does, and writes them as PEFT reads them")
    if wrappers:
        warnings.append(
            f"{' and '.join(wrappers)} in the keys' paths {'is' if len(wrappers) == 1 else 'are'} no part of the bare model, so "
            "PEFT would not apply those tensors; Pomona does, and writes them as PEFT reads them"
        )
    if adapter not in (None, "default"):
        warnings.append(
            f"the keys name the adapter {adapter!r}, and PEFT applies them under that name only; Pomona writes them without it"
        )
    return warnings
