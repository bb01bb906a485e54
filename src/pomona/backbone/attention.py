"""Which of transformers' attention implementations a model can be loaded with, known before it is."""

from __future__ import annotations

from pomona.errors import InputError, suggest

_FLASH = ("flash_attention_2", "flash_attention_3")


def check_attention(name: str | None) -> None:
    """Refuse an attention implementation that transformers does not have here.

    Args:
        name: as transformers calls it; None: the model's own choice.

    Raises:
        InputError: no such implementation, or one whose package is not installed.
    """
    if name is None:
        return
    from transformers import AttentionInterface
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    known = [one for one in ("eager", *AttentionInterface().valid_keys()) if not one.startswith(("paged", "pomona"))]
    if name not in known:
        raise InputError("no such attention implementation", field="attention", value=name, fix=suggest(name, known))
    there = dict(zip(_FLASH, (is_flash_attn_2_available, is_flash_attn_3_available), strict=True))
    if name in there and not there[name]():
        raise InputError(
            "its package is not installed, or this machine has no GPU for it",
            field="attention",
            value=name,
            fix="Install flash-attn on a machine with a GPU, or use sdpa",
        )
