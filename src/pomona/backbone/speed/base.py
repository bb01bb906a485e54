"""What a speed-up is, and which of them are in use for a model.

A speed-up computes the same losses, gradients and answers up to rounding, in less time or memory. It is one file in this room:
its first line says what it is worth and when, and its class says whether it suits a model. `recipe.speed: off` leaves all of
them out: that is the plain path, which `tests/conformance/test_speed.py` compares each of them with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Int
from torch import Tensor, nn

from pomona.backbone.trial_copy import trial_copy
from pomona.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Switch = Literal["auto", "off"]
"""`auto`: each speed-up that suits the model and its device. `off`: none."""


class SpeedUp(ABC):
    """One speed-up. Subclasses are frozen dataclasses, one a file, registered in `speed_ups`.

    It acts in the methods below, or elsewhere where the code asks `Packing in backbone.speed`.
    """

    changes_model: ClassVar[bool] = False
    """Whether `prepare` does something. Such speed-ups come first: the others are tried on the model as it then is."""

    @abstractmethod
    def suits(self, model: PreTrainedModel) -> bool:
        """Whether it is used for this model on its device. Asked once, when the model is loaded; it may try a short pass.

        Args:
            model: on its device, in float32, of the model's first layers where it is in another precision (`trial_copy`).
        """

    def prepare(self, model: nn.Module) -> None:  # noqa: B027 (most change nothing)
        """Change the model for good, where that takes no time and no weight is another afterwards."""

    def training_pass(self, model: nn.Module) -> AbstractContextManager[None]:
        """Entered around a forward pass whose activations are kept for a backward pass."""
        return nullcontext()

    def hidden_pass(self, model: PreTrainedModel, needed: Int[Tensor, " N"]) -> AbstractContextManager[None]:
        """Entered around a forward pass whose last hidden states are read at the places `needed` alone, counted row by row."""
        return nullcontext()


speed_ups: Registry[SpeedUp] = Registry("speed-up")


@dataclass(frozen=True)
class Speed:
    """The speed-ups in use for a model; none by default. `Packing in speed` says whether one is."""

    used: tuple[SpeedUp, ...] = ()

    def __contains__(self, kind: type[SpeedUp]) -> bool:
        return any(isinstance(one, kind) for one in self.used)

    def without(self, *kinds: type[SpeedUp]) -> Speed:
        """The same without some."""
        return Speed(tuple(one for one in self.used if not isinstance(one, kinds)))

    @contextmanager
    def training_pass(self, model: nn.Module) -> Iterator[None]:
        """See `SpeedUp.training_pass`: all of them together."""
        with ExitStack() as stack:
            for one in self.used:
                stack.enter_context(one.training_pass(model))
            yield

    @contextmanager
    def hidden_pass(self, model: PreTrainedModel, needed: Int[Tensor, " N"]) -> Iterator[None]:
        """See `SpeedUp.hidden_pass`: all of them together."""
        with ExitStack() as stack:
            for one in self.used:
                stack.enter_context(one.hidden_pass(model, needed))
            yield


def switched_on(model: PreTrainedModel, switch: Switch = "auto", tried: PreTrainedModel | None = None) -> Speed:
    """The speed-ups that suit a frozen model, each prepared. Called once, when the model is loaded.

    Args:
        model: on its device, in eval mode, without adapters: those would be part of what is tried.
        switch: `off` for none.
        tried: its `trial_copy`, where there is one already.
    """
    used: list[SpeedUp] = []
    if switch == "auto":
        tried = trial_copy(model) if tried is None else tried
        for one in sorted(map(speed_ups.create, speed_ups), key=lambda one: not one.changes_model):
            if one.suits(tried):
                one.prepare(model)
                used.append(one)
    return Speed(tuple(used))
