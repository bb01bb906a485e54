"""LoRA on bare parameters (PEFT's `target_parameters`): experts that a model stores in one tensor, each with its own pair.

PEFT 0.21 (`ParamWrapper`) stacks the pairs of the E experts of one parameter: A is [E R, I], expert by expert; B is [O, R E], and
column `k E + e` is expert e's k-th. If several parameters of one module are adapted, their wrappers are nested in the order in
which the model's code creates the parameters, the first innermost, and only the number of `base_layer` in a key identifies them.

In Pomona each expert's pair is an entry of the adapter, like that of a linear module. Its path names the expert:
`...experts.down_proj[3/32]` is expert 3, from 0, of 32; a matrix that is not a module (a router's) is `...gate.weight[0/1]`.

Axes: E experts, R rank of one expert, I input features, O output features.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors

# The order of parameters in every class of transformers 5.23 that stores its experts in one tensor.
ORDER = ("gate_proj", "gate_up_proj", "gate_up_proj_bias", "up_proj", "down_proj", "down_proj_bias")
"""Names of the parameters of a module of experts, the innermost wrapper's first."""

WRAPPED = ".base_layer"
"""What a key has after the module's path, once for each wrapper around."""
_ENTRY = re.compile(r"(?P<parameter>.+)\[(?P<number>\d+)/(?P<total>\d+)\]")


ROUTERS = frozenset({"gate", "router"})
"""Last parts of the paths of routers: modules of their own kind, which PEFT adapts by their weight only."""

SINGLE = re.compile(r"(?P<experts>.+\.experts)\.(?P<number>\d+)\.(?P<name>[^.]+)")
"""A linear module of one expert, as transformers 4 had it: `...mlp.experts.3.gate_proj`."""


class Expert(NamedTuple):
    """One expert: the parameter's path, the expert's number from 0, and the number of experts; 0 and 1 for a matrix."""

    parameter: str
    number: int
    total: int

    @property
    def path(self) -> str:
        """The entry's path in an adapter."""
        return f"{self.parameter}[{self.number}/{self.total}]"

    @property
    def module(self) -> str:
        """The path of the module that has the parameter."""
        return self.parameter.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The parameter's own name."""
        return self.parameter.rpartition(".")[2]


def expert_of(path: str) -> Expert | None:
    """The expert of an adapter's entry; None for the entry of a module."""
    match = _ENTRY.fullmatch(path)
    return Expert(match["parameter"], int(match["number"]), int(match["total"])) if match else None


def is_linear_or_router(module: str) -> bool:
    """Whether the name of a module with a matrix `weight` proves that it is used like a linear module."""
    last = module.rpartition(".")[2]
    return last in ROUTERS or last.endswith("_proj")


def key_modules(parameters: Iterable[str]) -> dict[str, str]:
    """Parameter -> the module in its keys, for all parameters of an adapter.

    Raises:
        ValueError: several of one module, not all of them in `ORDER`; the message is the module's path.
    """
    by_module: dict[str, list[str]] = {}
    for parameter in dict.fromkeys(parameters):
        module, _, name = parameter.rpartition(".")
        by_module.setdefault(module, []).append(name)
    found: dict[str, str] = {}
    for module, names in by_module.items():
        if len(names) > 1 and not set(names) <= set(ORDER):
            raise ValueError(module)
        inner_first = sorted(names, key=ORDER.index) if len(names) > 1 else names
        for depth, name in enumerate(reversed(inner_first)):
            found[f"{module}.{name}"] = module + WRAPPED * depth
    return found


def unstack(
    A: Float[Tensor, "ER I"], B: Float[Tensor, "O RE"], number: int, total: int
) -> tuple[Float[Tensor, "R I"], Float[Tensor, "O R"]]:
    """A copy of one expert's pair from the stacked pairs."""
    rank = len(A) // total
    return A[number * rank : (number + 1) * rank].clone(), B.view(len(B), rank, total)[:, :, number].contiguous()


def stack(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Float[Tensor, "ER I"], Float[Tensor, "O RE"]]:
    """The pairs of all experts of a parameter, all of one shape, stacked as in PEFT."""
    B_ORE = torch.stack([B_OR for _, B_OR in pairs], dim=2)
    return torch.cat([A_RI for A_RI, _ in pairs]), B_ORE.reshape(len(B_ORE), -1)


def without_experts(like: Factors) -> Factors:
    """A pair of rank 0 with the shape and dtype of another pair, for an expert without an update."""
    return Factors(like.A[:0], like.B[:, :0])


def without_factors(target_parameters: Iterable[str], paths: Iterable[str]) -> list[str]:
    """The entries of `target_parameters` that match no parameter of an adapter."""
    adapted = {f".{path}.weight" if (expert := expert_of(path)) is None else f".{expert.parameter}" for path in paths}
    return [target for target in target_parameters if not any(path.endswith(f".{target}") for path in adapted)]


def clash(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two entries that cannot be in one adapter, because PEFT would treat them as one weight; None if there are none.

    The cases: one parameter with two numbers of experts; a weight adapted as a module and as a parameter; single experts' modules
    (of transformers 4) and the tensor of all experts (of transformers 5).
    """
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    modules: dict[str, str] = {}
    for path in paths:
        expert = expert_of(path)
        if expert is None:
            single = SINGLE.fullmatch(path)
            modules[path] = path
            if single:
                modules.setdefault(_new_name(single["experts"]), path)
            continue
        if counts.setdefault(expert.parameter, expert.total) != expert.total:
            return first[expert.parameter], path
        first.setdefault(expert.parameter, path)
    for parameter, path in first.items():
        for other in (parameter.removesuffix(".weight"), _new_name(parameter.rpartition(".")[0])):
            if other in modules:
                return modules[other], path
    return None


def _new_name(module: str) -> str:
    """Mixtral's experts are in `mlp` since transformers 5."""
    return module.replace(".block_sparse_moe.", ".mlp.")
