"""After every single step of a run: the masks in force are those that plain loops in float64 select, and nothing else moved.

The loops see what a person would see: the inputs of every module as the model passes them on, the factors before and after the
pruning of each step. They share no code with the loop, its statistics, its metrics or its selection.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples
from tests.tuning.plain_masks import (
    Entry,
    Module,
    Seen,
    Smoothed,
    merged,
    merged_gradient,
    oracle,
    own,
    pruned,
    smooth,
    squares,
    times,
)
from torch import Tensor

import pomona.tuning.loop as loop_module
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.batches import Batch, Encoded
from pomona.backbone.load import Backbone
from pomona.backbone.speed import Packing
from pomona.backbone.trainable import trainable_merges
from pomona.control import Fixed
from pomona.importance import importance_metrics
from pomona.seeding import derive_seed
from pomona.tuning.fit import fit
from pomona.tuning.settings import Event, FitData, Pruning, Tuning

TRAIN = tiny_examples(5, seed=1, shortest=5, longest=9, completion=2)
# 3 steps, the first two of two batches.
TUNING = Tuning(epochs=1, learning_rate=0.05, batch_size=1, accumulation_steps=2, dropout=0.0, gradient_clip=0.5)
WITH_PADDING = dataclasses.replace(TUNING, epochs=2, batch_size=2)
FORGETTING, PRUNE_RATIO = 0.6, 0.5
RANKS, SHARES = (2, 3), (0.7, -0.75)
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Case:
    granularity: Any
    scope: Any
    reset: Any
    combine: Any = "concat"
    activations: Any = "streamed"
    layout: str = "packed"
    metric: str = "wanda"
    masks: Any = None

    def __str__(self) -> str:
        return "-".join(str(value) for value in vars(self).values() if value is not None)

    @property
    def by_adapter(self) -> bool:
        """The default: side by side each adapter has a quota of entries, and sums have masks of their own."""
        default = "adapter" if (self.combine, self.granularity) == ("concat", "parameter") else "merged"
        return (self.masks or default) == "adapter"


KINDS = [
    ("parameter", "tensor"), ("parameter", "layer"), ("parameter", "global"),
    ("rank", "tensor"), ("rank", "layer"), ("rank", "global"),
    ("module", "layer"), ("module", "global"),
]  # fmt: skip
CASES = [
    Case(*kind, reset, combine, activations)
    for kind, reset, combine, activations in itertools.product(
        KINDS, ("zero", "initial"), ("concat", "linear"), ("streamed", "full_pass")
    )
]
CASES += [
    Case("parameter", "tensor", "zero", combine, **{key: value})
    for combine in ("concat", "linear")
    for key, value in [("layout", "padded"), *(("metric", name) for name in importance_metrics if name != "wanda")]
]
CASES += [
    Case("parameter", scope, reset, *how, masks=masks)
    for scope in ("tensor", "layer", "global")
    for reset, *how, masks in [("zero", "concat", "merged"), ("zero", "linear", "adapter"), ("initial", "linear", "adapter")]
]
CASES += [
    Case("parameter", "tensor", "zero", "linear", metric=name, masks="adapter")
    for name in importance_metrics
    if name != "wanda" and importance_metrics.create(name).smoothing is None  # averages are those of the sum
]


class Watch:
    """Looks on while `fit` trains an attachment, and checks each step."""

    def __init__(self, attachment: Attachment, case: Case) -> None:
        self.attachment, self.case = attachment, case
        self.parameters = attachment.parameters()
        self.initial = self._values()
        self.content: Tensor | None = None
        self.sums: dict[str, tuple[list[float], list[float]]] = {}
        self.step_sums: dict[str, tuple[list[float], list[float]]] = {}
        self.generator = torch.Generator().manual_seed(0)
        self.gradients: dict[str, Module] = {}
        self.smoothed: dict[str, Smoothed] = {}
        self.masks: list[dict[str, Tensor]] = []
        for path, layer in attachment.layers.items():
            layer.register_forward_pre_hook(partial(self._see, path))

    def _values(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def seed(self, path: str) -> int:
        """Of a metric's draws, in a run of seed 0."""
        return derive_seed(0, "importance", path)

    def shares(self, path: str) -> list[float]:
        """One share an adapter, or, where their rows stand beside each other, one a row."""
        ranks_and_shares = list(zip(RANKS, SHARES, strict=True))[self.missing(path) :]
        if self.case.combine == "concat":
            return [share for rank, share in ranks_and_shares for _ in range(rank)]
        return [share for _, share in ranks_and_shares]

    def module(self, path: str, values: Mapping[str, Tensor] | None = None) -> Module:
        A, B = ((values or self.parameters)[f"{path}.{side}"].detach().double().tolist() for side in "AB")
        return merged(A, B, self.shares(path), self.case.combine)

    def missing(self, path: str) -> int:
        """How many of the first adapters the module does not have."""
        return 1 if path.endswith("down_proj") else 0

    def ranks(self, path: str) -> Sequence[int]:
        return RANKS[self.missing(path) :]

    def own(self, path: str, module: Module) -> list[Module]:
        """Each adapter's part of something of the merged factors' shapes; of sums, all of it that its rank reaches."""
        if self.case.combine == "concat":
            return own(*module, [1.0] * sum(self.ranks(path)), self.ranks(path), "concat")
        A, B = module
        return [(A[:rank], [row[:rank] for row in B]) for rank in self.ranks(path)]

    def complete(self) -> None:
        """The step's gradients are there: neither clipped nor used."""
        for path, layer in self.attachment.layers.items():
            assert layer.A.grad is not None
            assert layer.B.grad is not None
            A, B = layer.A.grad.double().tolist(), layer.B.grad.double().tolist()
            gradient = self.gradients[path] = merged_gradient(A, B, self.shares(path), self.case.combine)
            self.smoothed[path] = smooth(self.smoothed.get(path), self.module(path), gradient, 0.85, 0.85)

    def _see(self, path: str, layer: object, inputs: tuple[Tensor]) -> None:
        if self.content is None:
            return
        rows = inputs[0].detach()[self.content].double().tolist()
        A, _ = self.module(path)
        found = squares(rows), squares(times(A, rows))
        old = self.step_sums.get(path, ([0.0] * len(found[0]), [0.0] * len(found[1])))
        self.step_sums[path] = _add(old, found, 1.0)

    @torch.no_grad()
    def shake(self) -> None:
        """Move apart what was reset: without moments all entries grow by the same length, and scores would differ by roundings."""
        for parameter in self.parameters.values():
            parameter.mul_(1 + 0.02 * torch.rand(parameter.shape, generator=self.generator))

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer has moved the factors, and nothing is pruned yet."""
        self.content = None
        if self.case.activations == "full_pass":
            self.step_sums.clear()
            for example in TRAIN:
                self.content = torch.ones(1, len(example), dtype=torch.bool)
                with torch.no_grad():
                    self.attachment.backbone.model(input_ids=torch.tensor([example.tokens]))
            self.content = None
            self.sums = dict(self.step_sums)
        else:
            zeros = {path: ([0.0] * len(a), [0.0] * len(b)) for path, (a, b) in self.step_sums.items()}
            self.sums = {path: _add(self.step_sums[path], (self.sums or zeros)[path], FORGETTING) for path in zeros}
        self.step_sums.clear()
        self.before = self._values()
        self.moments = {
            name: {key: optimizer.state[parameter][key].clone() for key in MOMENTS} for name, parameter in self.parameters.items()
        }
        self.optimizer = optimizer

    def check(self, event: Event) -> None:
        """The step is over: every factor is what it was, but at the entries that ought to be pruned."""
        if event["kind"] != "step":
            return
        after = self._values()
        modules = {path: self.module(path, self.before) for path in self.attachment.layers}
        norms = {path: [[value**0.5 for value in side] for side in self.sums[path]] for path in modules}
        scores = {
            path: oracle(self.case.metric)(
                Seen(module, norms[path][0], norms[path][1], self.gradients[path], self.smoothed[path], self.seed(path))
            )
            for path, module in modules.items()
        }
        inputs = {path: norm[0] for path, norm in norms.items()}
        if self.case.by_adapter:
            modules, scores = self._by_adapter(modules, scores, norms)
        gone, unsure, count = pruned(modules, scores, inputs, PRUNE_RATIO, self.case.granularity, self.case.scope)
        assert len(unsure) <= 10
        total, masks = 0, {}
        for name, parameter in self.parameters.items():
            path, _, side = name.rpartition(".")
            stacked = self.case.by_adapter and self.case.combine == "linear"
            mask = torch.zeros(parameter.shape if stacked else parameter.shape[-2:], dtype=torch.bool)
            for entry in gone:
                if (place := self._place(entry, path, side)) is not None:
                    mask[place] = True
            reset = self.initial[name] if self.case.reset == "initial" else torch.zeros_like(parameter)
            for entry in unsure:  # take the loop's word, and count
                if (place := self._place(entry, path, side)) is not None:
                    mask[place] = torch.equal(after[name][(..., *place)], reset[(..., *place)])
            total += int(mask.sum())
            masks[name] = mask
            assert torch.equal(parameter, torch.where(mask, reset, self.before[name])), name
            for key in MOMENTS:
                moment = self.optimizer.state[parameter][key]
                assert torch.equal(moment, self.moments[name][key].masked_fill(mask, 0.0)), (name, key)
        assert total == count > 0
        self.masks.append(masks)

    def _by_adapter(
        self, modules: Mapping[str, Module], scores: Mapping[str, Module], norms: Mapping[str, list[list[float]]]
    ) -> tuple[dict[str, Module], dict[str, Module]]:
        """What each adapter brings into each module, and its scores: its part of the merged factors', or, of sums, of its own."""
        found, found_scores = {}, {}
        for path in modules:
            A, B = (self.before[f"{path}.{side}"].double().tolist() for side in "AB")
            factors = own(A, B, self.shares(path), self.ranks(path), self.case.combine)
            parts = zip(factors, self.own(path, scores[path]), self.own(path, self.gradients[path]), strict=True)
            for k, (module, of_merged, gradient) in enumerate(parts):
                seen = Seen(
                    module,
                    norms[path][0],
                    norms[path][1][: len(module[0])],
                    gradient,
                    self.smoothed[path],
                    derive_seed(self.seed(path), self.missing(path) + k),
                )
                name = f"{path}@{self.missing(path) + k}"
                found[name] = module
                found_scores[name] = of_merged if self.case.combine == "concat" else oracle(self.case.metric)(seen)
        return found, found_scores

    def _place(self, entry: Entry, path: str, side: str) -> tuple[int, ...] | None:
        """Where the entry is in the mask of this parameter; None where it is of another."""
        module, factor, row, column = entry
        of, _, adapter = module.partition("@")
        if (of, factor) != (path, side):
            return None
        if not adapter:
            return row, column
        k = int(adapter) - self.missing(path)
        if self.case.combine == "linear":
            return k, row, column
        first = sum(self.ranks(path)[:k])
        return (first + row, column) if side == "A" else (row, first + column)


def _add(one: Any, other: Any, factor: float) -> Any:
    return tuple([a + factor * b for a, b in zip(*sides, strict=True)] for sides in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    packed, padded = tiny_backbone("llama"), tiny_backbone("llama")
    vars(padded)["speed"] = padded.speed.without(Packing)
    assert Packing in packed.speed
    return {"packed": packed, "padded": padded}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_step_prunes_what_plain_loops_prune(
    backbones: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    backbone = backbones[case.layout]
    model = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    adapters = [
        tiny_adapter(backbone, seed=1, rank=RANKS[0], scaling=0.7, targets=["q_proj"]),
        tiny_adapter(backbone, seed=2, rank=RANKS[1], scaling=1.5, targets=["q_proj", "down_proj"]),
    ]
    with attached(backbone, adapters, [1.0, -0.5], how=trainable_merges[case.combine]()) as attachment:
        watch = Watch(attachment, case)
        make_batch, step, clip = loop_module.make_batch, torch.optim.AdamW.step, torch.nn.utils.clip_grad_norm_

        def training_batch(backbone: Backbone, examples: Sequence[Encoded]) -> Batch:
            batch = make_batch(backbone, examples)
            watch.content = batch.content
            assert (batch.lengths is None) == (case.layout == "padded")
            return batch

        def spied_step(optimizer: torch.optim.AdamW, *args: Any) -> Any:
            result = step(optimizer, *args)
            watch.shake()
            watch.stepped(optimizer)
            return result

        def spied_clip(*args: Any) -> Any:
            watch.complete()
            return clip(*args)

        monkeypatch.setattr(loop_module, "make_batch", training_batch)
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spied_clip)
        monkeypatch.setattr(torch.optim.AdamW, "step", spied_step)
        pruning = Pruning(
            importance_metrics.create(case.metric),
            forgetting=FORGETTING,
            activations=case.activations,
            granularity=case.granularity,
            scope=case.scope,
            masks=case.masks,
            reset=case.reset,
        )
        tuning = TUNING if case.layout == "packed" else WITH_PADDING
        fit(attachment, FitData(TRAIN), tuning, pruning=pruning, controller=Fixed(PRUNE_RATIO), emit=watch.check)
        assert len(watch.masks) == tuning.total_steps(len(TRAIN)) >= 3
        if (case.granularity, case.metric) == ("parameter", "wanda"):  # what was pruned competes again, and some grew enough
            assert any(not torch.equal(mask, watch.masks[-1][name]) for name, mask in watch.masks[0].items())
    assert backbone.model.state_dict().keys() == model.keys()
    assert all(torch.equal(value, model[name]) for name, value in backbone.model.state_dict().items())
