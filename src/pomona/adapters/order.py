"""The model's order of its modules, from their paths alone."""

from __future__ import annotations

# Names that stand in this order within a layer of the usual models; any other name comes after them, alphabetically.
_WITHIN_LAYER = (
    "self_attn",
    "attn",
    "c_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "mlp",
    "gate_proj",
    "up_proj",
    "down_proj",
    "c_fc",
)
_PLACE = {name: place for place, name in enumerate(_WITHIN_LAYER)}


def model_order(module: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key: layer numbers as numbers (2 before 10), then q, k, v, o, gate, up, down, then other names alphabetically."""
    return tuple(
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, _PLACE.get(part, len(_PLACE)), part)
        for part in module.split(".")
    )
