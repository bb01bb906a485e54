"""`paper: true` is the search of the published code: round by round, against an implementation from its description alone."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import pytest
import torch
from tests.tuning.published_search import PublishedRound, Settings, search
from torch import Tensor

from pomona.adapters import Adapter, Factors
from pomona.backbone.attach import attached
from pomona.backbone.batches import Encoded, training_order
from pomona.backbone.load import Backbone
from pomona.backbone.speed import switched_on
from pomona.backbone.trainable import Linear
from pomona.control import Grasp
from pomona.control.grasp import GraspState
from pomona.control.published import PUBLISHED as BEHAVIOURS
from pomona.importance import Magnitude
from pomona.seeding import derive_seed, stream
from pomona.tuning.fit import fit
from pomona.tuning.live_masks import LiveMasks
from pomona.tuning.settings import FitData, Fitted, Pruning, Tuning

TRAIN, MICRO_DEV, TOKENS, PROMPT = 12, 8, 10, 5
ROUNDS, CANDIDATES, ADAPTERS, RANK = 12, 3, 3, 4
MODULES = {f"model.layers.{layer}.self_attn.{name}": size for layer in (0, 1) for name, size in (("q_proj", 16), ("v_proj", 8))}
SEED = 32
"""Of a search whose decisions are clear: no reward that decides is so near to 0, or to the next one, that rounding could."""

PUBLISHED = Grasp(mode="two_pass", paper=True)
TUNING = Tuning(
    epochs=10,
    learning_rate=2e-2,
    learning_rate_decay=0.85,
    batch_size=1,
    accumulation_steps=1,
    dropout=0.0,
    gradient_clip=None,
)
PRUNING = Pruning(metric=Magnitude())


@dataclass(frozen=True, eq=False)
class Ground:
    """What both implementations start from."""

    backbone: Backbone
    adapters: list[dict[str, tuple[Tensor, Tensor]]]
    train: list[tuple[list[int], int]]
    micro_dev: list[tuple[list[int], int]]


@pytest.fixture(scope="module")
def ground() -> Ground:
    """Three adapters with scalings that do not count, and a rank-one component that none of them uses: its zeros tie."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 64}
    heads: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**shape, **heads, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(5)
    model.requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(5)
    train, micro_dev = (
        [(torch.randint(3, 64, (TOKENS,), generator=generator).tolist(), PROMPT) for _ in range(n)] for n in (TRAIN, MICRO_DEV)
    )
    adapters: list[dict[str, tuple[Tensor, Tensor]]] = []
    for _ in range(ADAPTERS):
        adapters.append({})
        for path, size in MODULES.items():
            A, B = 0.3 * torch.randn(RANK, 16, generator=generator), 0.3 * torch.randn(size, RANK, generator=generator)
            A[-1], B[:, -1] = 0.0, 0.0
            adapters[-1][path] = A, B
    return Ground(Backbone(model, None, "tiny", speed=switched_on(model)), adapters, train, micro_dev)  # pyright: ignore[reportArgumentType]


def published(ground: Ground, seed: int = SEED, rounds: int = ROUNDS, **changes: Any) -> tuple[list[PublishedRound], float]:
    """By the description. Draws and the order of the examples are the streams of the product's run of that seed."""
    settings = replace(Settings(TUNING.learning_rate, TUNING.learning_rate_decay), **changes)
    steps = [
        (epoch, index)
        for epoch in range(TUNING.epochs)
        for batch in training_order([TOKENS] * TRAIN, 1, stream(seed, "batches", epoch))
        for index in batch
    ][: rounds * settings.interval_steps]
    epochs = [[index for of, index in steps if of == epoch] for epoch in range(TUNING.epochs)]
    own = derive_seed(seed, "controller")
    draws = [
        torch.randn(CANDIDATES, generator=stream(own, "round", index, "samples"), dtype=torch.float64).tolist()
        for index in range(rounds)
    ]
    return search(ground.backbone.model, ground.adapters, ground.train, ground.micro_dev, epochs, draws, settings)


class Enough(BaseException):
    """As many rounds as are wanted."""


@dataclass(frozen=True, eq=False)
class Found:
    """The product's rounds, the masks in force after each (empty before the first commit), and how the run ended."""

    rounds: list[dict[str, Any]]
    masks: list[Mapping[str, Tensor]]
    fitted: Fitted | None


def product(ground: Ground, controller: Grasp, seed: int = SEED, rounds: int = ROUNDS, tuning: Tuning = TUNING) -> Found:
    """Pomona's search, to its end or for some rounds."""
    adapters = [
        Adapter({path: Factors(A, B, scaling) for path, (A, B) in one.items()}, "tiny")
        for one, scaling in zip(ground.adapters, (4.0, 1.0, 0.5), strict=True)
    ]
    data = FitData(*([Encoded(tuple(tokens), start) for tokens, start in texts] for texts in (ground.train, ground.micro_dev)))
    in_force: dict[str, Tensor] = {}
    told: list[dict[str, Any]] = []
    masks: list[Mapping[str, Tensor]] = []
    hold = LiveMasks.hold

    def spy(masks: LiveMasks, committed: Mapping[str, Tensor]) -> Any:
        in_force.update({name: mask.clone() for name, mask in committed.items()})
        return hold(masks, committed)

    def look(event: dict[str, Any]) -> None:
        if event["kind"] == "round":
            told.append(event)
            masks.append(dict(in_force))
            if len(told) == rounds < ROUNDS:
                raise Enough

    fitted = None
    how = Linear(paper=True)
    with (
        attached(ground.backbone, adapters, None, 0.0, how) as attachment,
        mock.patch.object(LiveMasks, "hold", spy),
        contextlib.suppress(Enough),
    ):
        fitted = fit(attachment, data, tuning, pruning=PRUNING, controller=controller, seed=seed, emit=look)
    return Found(told, masks, fitted)


def differences(found: Found, expected: Sequence[PublishedRound]) -> list[str]:
    """Whatever differs, by round: numbers by more than 1e-5; commits and masks at all."""
    told = []
    for index, (one, other, masks) in enumerate(zip(found.rounds, expected, found.masks, strict=True)):
        numbers = {
            "proposals": ([tried["prune_ratio"] for tried in one["candidates"]], other.ratios),
            "L_0": ([one["loss_before"]], [other.loss_before]),
            "rewards": ([tried["reward"] for tried in one["candidates"]], other.rewards),
            "policy": ([one["mean"], one["deviation"]], [other.mean, other.deviation]),
            "books": ([one["prune_ratio_after"]], [other.ratio]),
        }
        told += [f"{name} of round {index}" for name, (a, b) in numbers.items() if a != pytest.approx(b, rel=0, abs=1e-5)]
        told += [] if one["committed"] == other.committed else [f"commit of round {index}"]
        told += [] if same(masks, other.masks) else [f"masks of round {index}"]
    return told


def same(masks: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Of every adapter, entry by entry; a mask for all adapters stands for each."""
    if not masks or not expected:
        return not masks and not expected
    stacks = {
        f"{path}.{side}": torch.stack([expected[f"{path}.{side}.{k}"] for k in range(ADAPTERS)])
        for path in MODULES
        for side in "AB"
    }
    return masks.keys() == stacks.keys() and all(torch.equal(masks[name].expand_as(stacks[name]), stacks[name]) for name in stacks)


@pytest.fixture(scope="module")
def trace(ground: Ground) -> tuple[list[PublishedRound], float]:
    return published(ground)


def test_the_trace_covers_the_intended_steps(trace: tuple[list[PublishedRound], float]) -> None:
    """Commits and none, ratios that rise and fall, one that is bounded, an answer; and no decision that rounding could turn."""
    rounds, answer = trace
    assert len(rounds) == ROUNDS
    ratios = [0.40, *(one.ratio for one in rounds if one.committed)]
    assert 3 <= len(ratios) - 1 < ROUNDS
    moves = [after - before for before, after in itertools.pairwise(ratios)]
    assert min(moves) == pytest.approx(-0.10)
    assert max(moves) == pytest.approx(0.10)
    assert not rounds[0].masks or rounds[0].committed
    for one in rounds:
        second, best = sorted(one.rewards)[-2:]
        assert abs(best) > 1e-4
        assert not one.committed or best - second > 1e-4
    assert answer == max((reward, ratio) for one in rounds for reward, ratio in zip(one.rewards, one.ratios, strict=True))[1]


def test_paper_is_the_published_search_over_120_steps(ground: Ground, trace: tuple[list[PublishedRound], float]) -> None:
    rounds, answer = trace
    found = product(ground, PUBLISHED)
    assert differences(found, rounds) == []
    assert found.fitted is not None
    assert found.fitted.answer is not None
    assert found.fitted.answer.prune_ratio == pytest.approx(answer, rel=0, abs=1e-5)
    state = found.fitted.control
    assert isinstance(state, GraspState)
    assert without("best_reward").choose(state).prune_ratio != pytest.approx(answer, abs=1e-3)


def without(*names: str) -> Grasp:
    """The published search but for these behaviours."""
    return replace(PUBLISHED, paper=False, published=tuple(name for name in BEHAVIOURS if name not in names))


# How many rounds show the difference; those that need other ground have a test of their own.
SHOWN = {
    "reinforce": 1,
    "narrow_start": 1,
    "independent_draws": 1,
    "all_probed": 1,
    "starts_unpruned": 1,
    "masks_by_adapter": 1,
    "any_gain": 2,
    "candidate_mask": 2,
    "importance_once": 2,
    "no_feedback": 2,
    "adam_restart": 2,
    "moments_at_commits": 3,
}


@pytest.mark.parametrize("name", SHOWN)
def test_without_one_of_its_behaviours_it_is_another_search(
    ground: Ground, trace: tuple[list[PublishedRound], float], name: str
) -> None:
    rounds = SHOWN[name]
    other = without(name, "variance_floor") if name == "reinforce" else without(name)
    assert differences(product(ground, other, rounds=rounds), trace[0][:rounds]) != []


def test_the_reference_matters_where_importance_moves_on(ground: Ground, trace: tuple[list[PublishedRound], float]) -> None:
    """Importance taken once makes a fresh mask the one that is held."""
    assert differences(product(ground, without("held_reference"), rounds=2), trace[0][:2]) == []
    held, fresh = (
        product(ground, without("importance_once", *more), rounds=2).rounds[1]["loss_before"] for more in ((), ("held_reference",))
    )
    assert abs(held - fresh) > 1e-3


def test_a_narrow_policy_divides_by_the_variance_s_floor(ground: Ground) -> None:
    expected, _ = published(ground, seed=2, rounds=1, deviation=0.008, entropy=0.0)
    narrow = {"deviation_start": 0.008, "entropy": 0.0}
    assert differences(product(ground, replace(PUBLISHED, **narrow), seed=2, rounds=1), expected) == []
    assert differences(product(ground, replace(without("variance_floor"), **narrow), seed=2, rounds=1), expected) != []


def test_all_entries_that_tie_are_pruned(ground: Ground) -> None:
    """Sizes on a grid tie, and a learning rate of nothing keeps them there."""
    adapters = [{path: (A.mul(10).round() / 10, B.mul(10).round() / 10) for path, (A, B) in one.items()} for one in ground.adapters]
    tied, still = replace(ground, adapters=adapters), replace(TUNING, learning_rate=1e-30)
    expected, _ = published(tied, seed=18, rounds=2, learning_rate=1e-30)
    assert expected[0].committed
    best = expected[0].ratios[max(range(CANDIDATES), key=expected[0].rewards.__getitem__)]
    masks = expected[0].masks.values()
    assert sum(int(mask.sum()) for mask in masks) > sum(int(best * mask.numel()) for mask in masks)
    assert differences(product(tied, PUBLISHED, seed=18, rounds=2, tuning=still), expected) == []
    assert differences(product(tied, without("ties_pruned"), seed=18, rounds=2, tuning=still), expected) != []
