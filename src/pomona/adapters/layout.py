"""The pairs of tensors of a written adapter, with PEFT's names, and the config field by which PEFT finds each pair.

A pair in the file can differ from an entry of the adapter in three ways. The experts of one parameter are stacked into one pair.
PEFT 0.21 translates single experts of transformers 4 to the fused experts of transformers 5 only if all experts of a layer have a
pair, and `gate_proj` if `up_proj` has one: missing pairs are written as zeros. In a mixture of experts PEFT treats every
`gate_proj`, `up_proj` and `down_proj` in `target_modules` as an expert's, also that of a shared expert or a dense layer, which it
then ignores: these modules, and routers, which are not linear modules, are named in `target_parameters`, by their weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pomona.adapters.experts import ROUTERS, SINGLE, Expert, clash, expert_of, key_modules, without_experts
from pomona.adapters.factors import Adapter, Factors
from pomona.errors import InputError

# The parts of one fused tensor of transformers 5.
_FUSED = ({"gate_proj", "up_proj"}, {"down_proj"}, {"w1", "w3"}, {"w2"})
_TAKEN_FOR_EXPERTS = frozenset({"gate_proj", "up_proj", "down_proj"})
_TRANSLATED_IN = (".mlp.experts", ".block_sparse_moe.experts")
_SHARED = ".shared_expert"


@dataclass(frozen=True)
class FilePair:
    """One pair of the file.

    Args:
        module: the module in its keys.
        entries: the adapter's entries in it: one of a module, or one for each expert of a parameter; None: zeros.
        like: an entry of the same shape.
        stacked: whether it belongs to a parameter.
    """

    module: str
    entries: tuple[str | None, ...]
    like: str
    stacked: bool = False

    def factors(self, adapter: Adapter) -> Iterator[Factors]:
        """Each entry's factors, read one after the other; of rank 0 for zeros."""
        for entry in self.entries:
            yield without_experts(adapter[self.like]) if entry is None else adapter[entry]


@dataclass(frozen=True)
class FileLayout:
    """The pairs, in the adapter's order, and the config's fields for them.

    Args:
        pairs: at least one.
        modules: `target_modules`.
        parameters: `target_parameters`.
    """

    pairs: tuple[FilePair, ...]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def lay_out(adapter: Adapter, *, mixture: bool = False) -> FileLayout:
    """The layout of an adapter's file. Reads no factors.

    Args:
        adapter: one or more entries.
        mixture: whether the base is known to be a mixture of experts; paths can also show it.

    Raises:
        InputError: two entries would be one weight for PEFT, or the order of a module's parameters is unknown.
    """
    twice = clash(adapter)
    if twice is not None:
        problem = f"has factors of {twice[0]} and of {twice[1]}, which are one weight for PEFT"
        raise InputError(problem, field="adapter", fix="Merge adapters of one spelling only")
    experts = [expert for path in adapter if (expert := expert_of(path)) is not None]
    try:
        keys = key_modules(expert.parameter for expert in experts)
    except ValueError as error:
        problem = "has several adapted parameters, and their order in the model is not known"
        raise InputError(problem, field=str(error), fix="Merge adapters of one parameter of this module") from error
    missing = _missing_singles(adapter)
    pairs: dict[str, FilePair] = {}
    for path in adapter:
        expert = expert_of(path)
        if expert is None:
            pairs[path] = FilePair(path, (path,), path)
        elif expert.parameter not in pairs:
            places = [Expert(expert.parameter, number, expert.total).path for number in range(expert.total)]
            entries = tuple(place if place in adapter else None for place in places)
            pairs[expert.parameter] = FilePair(keys[expert.parameter], entries, path, stacked=True)
    pairs |= {path: FilePair(path, (None,), like) for path, like in missing.items()}
    mixture |= bool(experts) or any(SINGLE.fullmatch(path) or _SHARED in path for path in adapter)
    by_weight = {path for path, pair in pairs.items() if not pair.stacked and _is_by_weight(adapter, path, mixture=mixture)}
    modules = tuple(name for name, pair in pairs.items() if not pair.stacked and name not in by_weight)
    parameters = tuple(
        f"{name}.weight" if name in by_weight else name for name in pairs if name in by_weight or pairs[name].stacked
    )
    return FileLayout(tuple(pairs.values()), modules, parameters)


def _is_by_weight(adapter: Adapter, path: str, *, mixture: bool) -> bool:
    if path in adapter.embeddings or SINGLE.fullmatch(path) or bool(adapter.provenance.get("fan_in_fan_out")):
        return False
    last = path.rpartition(".")[2]
    return last in ROUTERS or (mixture and last in _TAKEN_FOR_EXPERTS)


def _missing_singles(adapter: Adapter) -> dict[str, str]:
    """Missing modules of single experts, which PEFT needs to combine the others -> an entry of the same shape."""
    found: dict[tuple[str, int], dict[int, dict[str, str]]] = {}
    count = 0
    for path in adapter:
        single = SINGLE.fullmatch(path)
        if single is None or not single["experts"].endswith(_TRANSLATED_IN):
            continue
        group = next((place for place, names in enumerate(_FUSED) if single["name"] in names), None)
        if group is not None:
            found.setdefault((single["experts"], group), {}).setdefault(int(single["number"]), {})[single["name"]] = path
            count = max(count, int(single["number"]) + 1)
    missing: dict[str, str] = {}
    for (experts, group), by_number in found.items():
        like = next(iter(next(iter(by_number.values())).values()))
        for number in range(count):
            absent = _FUSED[group] - by_number.get(number, {}).keys()
            missing |= {f"{experts}.{number}.{name}": like for name in sorted(absent)}
    return missing
