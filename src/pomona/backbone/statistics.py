"""Input norms of every adapted module, streamed from the forward passes that training does anyway.

The published procedure runs the whole training set through the model again after every optimizer step. Here each training
batch adds its sums of squares, and older batches are forgotten exponentially: no extra pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.importance import ModuleStatistics


class StreamedNorms:
    """Exponentially forgetting root mean squares over non-padding tokens, a pair for each adapted module.

    After step t the estimate is sqrt(sum_u f^(t-u) S_u / sum_u f^(t-u) n_u), with S_u the sum of squares and n_u the number of
    tokens of step u, f the forgetting factor. It differs from the L2 norm over the training set by one constant for all
    entries, which no mask depends on.

    Args:
        attachment: whose modules are observed.
        forgetting: f, in [0, 1]; 1 never forgets.
    """

    def __init__(self, attachment: Attachment, forgetting: float) -> None:
        self._forgetting = forgetting
        self._tokens = 0.0
        self._content: Bool[Tensor, "B T 1"] | None = None
        self._last: tuple[Tensor, Tensor] | None = None
        self._inputs = {path: torch.zeros_like(layer.A[0]).detach() for path, layer in attachment.layers.items()}
        self._hidden = {path: torch.zeros_like(layer.A[:, 0]).detach() for path, layer in attachment.layers.items()}

    def begin_step(self) -> None:
        """Forget a part of what was seen, before the step's first batch."""
        self._tokens *= self._forgetting
        for sums in (*self._inputs.values(), *self._hidden.values()):
            sums.mul_(self._forgetting)

    def begin_batch(self, content: Bool[Tensor, "B T"]) -> None:
        """Name the batch's non-padding tokens, before its forward pass."""
        self._content = content[..., None]
        self._tokens += float(content.sum())
        self._last = None

    @torch.no_grad()
    def __call__(self, module: str, inputs: Tensor, hidden: Tensor) -> None:
        """Observer of `AdaptedLinear`: add a module's sums of squares."""
        # Query, key and value read one tensor: its squares are summed once.
        if self._last is None or self._last[0] is not inputs:
            self._last = (inputs, self._sum_of_squares(inputs))
        self._inputs[module] += self._last[1]
        self._hidden[module] += self._sum_of_squares(hidden)

    def _sum_of_squares(self, x: Tensor) -> Tensor:
        assert self._content is not None, "begin_batch comes before the forward pass"
        return (x.float() * self._content).square_().sum(dim=(0, 1))

    def __getitem__(self, module: str) -> ModuleStatistics:
        tokens = max(self._tokens, 1.0)
        return ModuleStatistics((self._inputs[module] / tokens).sqrt(), (self._hidden[module] / tokens).sqrt())

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; `load_state` takes it back."""
        sums = {f"{module}.inputs": value for module, value in self._inputs.items()}
        sums |= {f"{module}.hidden": value for module, value in self._hidden.items()}
        return sums | {"tokens": torch.tensor(self._tokens, dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._tokens = float(state["tokens"])
        for module in self._inputs:
            self._inputs[module].copy_(state[f"{module}.inputs"])
            self._hidden[module].copy_(state[f"{module}.hidden"])
