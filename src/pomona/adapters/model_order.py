"""A module's position in the model's order and its layer, from its path alone."""

from __future__ import annotations

import functools

from pomona.adapters.experts import expert_of

# The order of these names in the model or within a layer; all other names come after them, alphabetically.
_FIRST = (
    "embed_tokens",
    "wte",
    "self_attn",
    "attn",
    "c_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "mlp",
    "gate_proj",
    "gate_up_proj",
    "gate_up_proj_bias",
    "up_proj",
    "down_proj",
    "c_fc",
)
_PLACE = {name: place for place, name in enumerate(_FIRST)} | {"lm_head": len(_FIRST) + 1}


def model_order(module: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key: layer and expert numbers as numbers (2 before 10), then names in the model's order.

    The embedding first; q, k, v, o, gate, up, down; other names alphabetically; the head last.
    """
    expert = expert_of(module)
    if expert is not None:
        return (*model_order(expert.parameter), (0, expert.number, ""))
    return tuple((0, int(part), "") if _is_number(part) else (1, _PLACE.get(part, len(_FIRST)), part) for part in module.split("."))


@functools.cache  # pruning asks for the same few modules after every optimizer step
def layer_number(module: str) -> int | None:
    """The layer of a module: the first whole number among the parts of its path; None outside the layers."""
    return next((int(part) for part in module.split(".") if _is_number(part)), None)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit()
