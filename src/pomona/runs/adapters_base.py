"""On which model adapters are used where none is named: on the base that they were trained on, and never on another in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pomona.adapters import Adapter
from pomona.adapters.compatible import adapter_name
from pomona.adapters.same_base import Base, base_of, base_warnings, differences, last_part
from pomona.backbone.embedded import EMBEDDED, NAME
from pomona.backbone.load import Backbone
from pomona.backbone.model_folder import cached_folder
from pomona.errors import InputError


def model_for(adapters: Sequence[Adapter], given: str | None) -> str:
    """What to load: what the user names, else the base of the adapters, else (without adapters) the embedded model.

    The base is taken if it is the embedded model, a folder that is here, or a hub id in the local cache; nothing is fetched that
    the user has not asked for.

    Raises:
        InputError: no adapter names its base; two name different ones; it is not here.
    """
    if given is not None:
        return given
    if not adapters:
        return EMBEDDED
    named = [(adapter_name(one, place), base_of(one)) for place, one in enumerate(adapters) if one.base_model]
    if not named:
        problem = f"{adapter_name(adapters[0], 0)} does not name its base model"
        raise InputError(problem, field="--model", fix="Give the model that it was trained on as --model")
    first, reference = named[0]
    for name, base in named[1:]:
        if _are_two(reference, base):
            problem = f"{first} was trained on {reference.name!r}, but {name} on {base.name!r}"
            raise InputError(problem, field="--model", fix="Say with --model on which model to use them")
    found = next((model for _, base in named if (model := _here(str(base.name))) is not None), None)
    if found is None:
        problem = f"{first} was trained on {reference.name!r}, which is neither a folder here nor in the local hub cache"
        is_hub_id = str(reference.name).count("/") == 1 and not str(reference.name).startswith(("/", ".", "~"))
        fetch = f", or --model {reference.name} to download it" if is_hub_id else ""
        raise InputError(problem, field="--model", fix=f"Give the folder of that model as --model{fetch}")
    return found


def meeting_warnings(adapters: Sequence[Adapter], backbone: Backbone) -> list[str]:
    """A sentence for each adapter that was trained on another base than the model is."""
    return base_warnings([(adapter_name(one, place), one) for place, one in enumerate(adapters)], backbone.base)


def _are_two(one: Base, other: Base) -> bool:
    return differences(one, other) is not None and last_part(str(one.name)) != last_part(str(other.name))


def _here(name: str) -> str | None:
    """What `load_backbone` takes for the base of this name without fetching anything; None where it is not here."""
    if name in {EMBEDDED, NAME}:
        return EMBEDDED
    if "://" in name:  # an address may end as any model's name does
        return None
    if Path(name).expanduser().is_dir():
        return name
    if name.count("/") == 1 and cached_folder(name) is not None:
        return name
    return EMBEDDED if last_part(name) == NAME.lower() else None
