"""Norms of every adapted module's input and of its hidden values, streamed from the forward passes that training does anyway.

The published procedure runs the whole training set through the model again after every optimizer step. Here each training
batch adds its sums of squares, and older steps are forgotten exponentially: no extra pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.engines import NATIVE, Engine
from pomona.importance import ModuleStatistics


class Norms(ABC):
    """Where an importance metric's norms come from. `prepare` comes before they are read; other calls may do nothing.

    The training loop calls, for each optimizer step: `begin_batch` and `end_batch` around the forward pass (not the backward
    pass) of each of its batches, then `end_step`. Under data parallelism every rank calls `end_step` and `prepare`, and all
    then read the same norms.
    """

    def begin_batch(self, content: Bool[Tensor, "B T"]) -> None:  # noqa: B027 (most norms need only some of the calls)
        """A training batch's forward pass follows.

        Args:
            content: True where the token is not padding.
        """

    def end_batch(self) -> None:  # noqa: B027
        """The batch's forward pass is done."""

    def end_step(self) -> None:  # noqa: B027
        """All batches of an optimizer step are done."""

    def begin_step_again(self) -> None:  # noqa: B027
        """What the batches of this optimizer step gave does not count: a pass failed, perhaps before `end_batch`."""

    def prepare(self) -> None:  # noqa: B027
        """The norms are about to be read, with the factors as they now are."""

    @abstractmethod
    def of(self, modules: Sequence[str]) -> ModuleStatistics:
        """The stacked norms of modules of one shape, [M, I] and [M, R], without gradients."""

    def __getitem__(self, module: str) -> ModuleStatistics:
        """A module's norms, without gradients."""
        return self.of([module]).each([0])[0]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint between two steps must hold; `load_state` takes it back."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Go on from a checkpoint."""


TOGETHER = 32
"""Modules whose hidden values are summed together: few operations, and no more memory than some layers' activations."""


class SquareSums:
    """Sums of squares over non-padding tokens, of each module's input features and of its hidden values. An `Observer`.

    Args:
        attachment: whose modules are observed, between `begin_batch` and `end_batch` alone: neither the passes in between
            (probes, dev losses) nor those that gradient checkpointing makes once more are counted.
    """

    flat: Float[Tensor, " N"]
    """All sums, fp32, and the number of tokens at the end: may be scaled and added to as one. `inputs`, `hidden` are views."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        pairs = [layer.effective() for layer in attachment.layers.values()]
        sizes = [size for pair in pairs for size in (pair.in_features, pair.rank)]
        self.flat = torch.zeros(sum(sizes) + 1, device=pairs[0].A.device)
        *views, self.tokens = self.flat.split([*sizes, 1])
        self.inputs = dict(zip(attachment.layers, views[::2], strict=True))
        self.hidden = dict(zip(attachment.layers, views[1::2], strict=True))
        self._content: Float[Tensor, "B T 1"] | None = None
        self._last: tuple[Tensor, Tensor] | None = None
        self._of_inputs: dict[str, Tensor] = {}
        self._of_hidden: dict[str, Tensor] = {}
        self._waiting: dict[torch.Size, dict[str, Tensor]] = {}
        """Shape -> module -> hidden values that are not summed yet."""

    def of(self, modules: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The sums of modules of one shape, stacked: of their inputs [M, I], and of their hidden values [M, R]."""
        return torch.stack([self.inputs[one] for one in modules]), torch.stack([self.hidden[one] for one in modules])

    def begin_batch(self, content: Bool[Tensor, "B T"]) -> None:
        """Watch from now on; `content` names the non-padding tokens of the batch."""
        self._content = content[..., None].float()
        self.tokens += self._content.sum()
        self._attachment.observe(self)

    def end_batch(self) -> None:
        """Watch no more."""
        self._add()
        self._attachment.observe(None)
        self._content = self._last = None

    def clear(self) -> None:
        """Watch no more, and begin again from zero."""
        for waiting in self._waiting.values():
            waiting.clear()
        self._of_inputs.clear()
        self._of_hidden.clear()
        self.end_batch()
        self.flat.zero_()

    @torch.no_grad()
    def __call__(self, module: str, inputs: Tensor, hidden: Tensor) -> None:
        """Take in a module's squares. Hidden values are few: those of several modules are summed together."""
        if module in self._of_inputs:  # some models run a module twice
            self._add()
        # Query, key and value read one tensor: its squares are summed once.
        if self._last is None or self._last[0] is not inputs:
            self._last = (inputs, self._sums_of_squares(inputs[None])[0])
        self._of_inputs[module] = self._last[1]
        waiting = self._waiting.setdefault(hidden.shape, {})
        waiting[module] = hidden
        if len(waiting) == TOGETHER:
            self._sum_hidden(waiting)

    def _sum_hidden(self, waiting: dict[str, Tensor]) -> None:
        if waiting:
            sums = self._sums_of_squares(torch.stack(list(waiting.values())))
            self._of_hidden |= zip(waiting, sums.unbind(), strict=True)
            waiting.clear()

    @torch.no_grad()
    def _add(self) -> None:
        """Add what was taken in."""
        for waiting in self._waiting.values():
            self._sum_hidden(waiting)
        totals = [self.inputs[module] for module in self._of_inputs] + [self.hidden[module] for module in self._of_hidden]
        if totals:
            torch._foreach_add_(totals, [*self._of_inputs.values(), *self._of_hidden.values()])  # pyright: ignore[reportPrivateImportUsage]
        self._of_inputs.clear()
        self._of_hidden.clear()

    def _sums_of_squares(self, x_M: Float[Tensor, "M ..."]) -> Float[Tensor, "M F"]:
        """Of M tensors of one shape, over the non-padding tokens."""
        assert self._content is not None, "begin_batch comes before the forward pass"
        # Some models, as OPT, read the tokens of a batch in one row of rows.
        return x_M.float().square().view(len(x_M), *self._content.shape[:2], -1).mul_(self._content).sum(dim=(1, 2))


class StreamedNorms(Norms):
    """Exponentially forgetting root mean squares over non-padding tokens, a pair for each adapted module.

    After step t the estimate is sqrt(sum_u f^(t-u) S_u / sum_u f^(t-u) n_u), with S_u the sum of squares and n_u the number of
    tokens of step u over all its batches on all ranks, f the forgetting factor. With factors that stand still it differs from
    the L2 norm over the training set by one constant for all entries, which no mask depends on.

    Args:
        attachment: whose modules are observed.
        forgetting: f, in [0, 1]; 1 never forgets.
        engine: joins the ranks' sums.
    """

    def __init__(self, attachment: Attachment, forgetting: float, engine: Engine = NATIVE) -> None:
        self._forgetting, self._engine = forgetting, engine
        self._step = SquareSums(attachment)
        self._sums = SquareSums(attachment)

    def begin_batch(self, content: Bool[Tensor, "B T"]) -> None:
        """Watch the forward pass that follows."""
        self._step.begin_batch(content)

    def end_batch(self) -> None:
        """Watch no more."""
        self._step.end_batch()

    def begin_step_again(self) -> None:
        """See `Norms.begin_step_again`."""
        self._step.clear()

    def end_step(self) -> None:
        """Join the step's sums of all ranks, and forget a part of what was seen before."""
        self._engine.sum([self._step.flat])
        self._sums.flat.mul_(self._forgetting).add_(self._step.flat)
        self._step.flat.zero_()

    def of(self, modules: Sequence[str]) -> ModuleStatistics:
        """See `Norms.of`."""
        tokens = self._sums.tokens.clamp(min=1.0)
        inputs_MI, hidden_MR = self._sums.of(modules)
        return ModuleStatistics((inputs_MI / tokens).sqrt(), (hidden_MR / tokens).sqrt())

    def state(self) -> dict[str, Tensor]:
        """The sums, after the last step; see `Norms.state`."""
        return {"sums": self._sums.flat}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._sums.flat.copy_(state["sums"])
        self._step.flat.zero_()
