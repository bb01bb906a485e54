"""Random adapters, not trained, for benchmarks of the training step."""

from __future__ import annotations

from pomona.adapters import Adapter
from pomona.backbone.attach import new_adapter
from pomona.backbone.load import Backbone
from pomona.seeding import stream


def drawn_adapter(backbone: Backbone, index: int) -> Adapter:
    """An adapter of rank 8 on q and v with an effect: B is drawn, too."""
    generator = stream(0, "benchmark", index)
    adapter = new_adapter(backbone, ("q_proj", "v_proj"), 8, 32, generator)
    for module in adapter:
        adapter[module].B.normal_(0, 0.01, generator=generator)
    return adapter
