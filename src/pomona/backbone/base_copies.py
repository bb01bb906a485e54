"""Whole tensors that an adapter brings, beside a model that is loaded: copies of its own are let go, others are refused."""

from __future__ import annotations

from pomona.adapters.compatible import adapter_name
from pomona.adapters.factors import Adapter
from pomona.adapters.full_tensors import is_copy
from pomona.backbone.load import Backbone
from pomona.errors import InputError


def proven_copies(adapter: Adapter, backbone: Backbone) -> list[str]:
    """See that every whole tensor of an adapter is the model's own, so that the factors alone are the adapter.

    Returns:
        A warning that says what is left out; none where there are no whole tensors.

    Raises:
        InputError: the model has no such tensor, or another.
    """
    own = backbone.model.state_dict()
    for parameter, tensor in adapter.whole.items():
        name = adapter_name(adapter, 0)
        if parameter not in own:
            problem = "is brought whole, and the model has no such parameter"
            raise InputError(problem, file=name, field=parameter, fix="Use the base model that it was trained on")
        if not is_copy(tensor.to(own[parameter].device), own[parameter]):
            problem = "is brought whole and is not the model's own, and only factors can be attached to a model"
            fix = "Put it into the base with `pomona export --for merged`, and use the model that comes of it"
            raise InputError(problem, file=name, field=parameter, fix=fix)
    if not adapter.whole:
        return []
    return [f"{adapter_name(adapter, 0)}: left out as copies of the model's own: {', '.join(adapter.whole)}"]
