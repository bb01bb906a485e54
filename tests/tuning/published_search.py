"""The search of GRASP's published code, written from its description alone: tensors in, one line a round and the answer out.

It shares nothing with `pomona.control` and `pomona.tuning` but three inputs: the initial factors, the order of the training
examples, and the standard normal numbers that candidates are drawn by. Forward passes are those of transformers with hooks, the
optimizer is ten lines of arithmetic. The description:

- The update of a module is `(sum_k B_k) (sum_k A_k)`: adapters are summed factor by factor, their scalings left out, and all
  factors of all adapters are trained: AdamW without weight decay, one example a step, no dropout, no clipping.
- Nothing is pruned until a round commits a mask. After every tenth step there is a round.
- Importance is the size of each entry of each adapter's factors when the first round begins. A mask of ratio p of a factor of n
  entries has all entries whose importance is at most the floor(p n)-th lowest, equal ones too.
- L_0 is the mean loss over the micro dev examples with the weights as they are. Each candidate `mean + deviation z`, clamped to the
  allowed range, is tried: entries that are pruned now and not by its mask have the value that they had when they were pruned. Its
  reward is L_0 less its own mean loss.
- The policy: `a_g = r_g - mean(r)`, `v = max(deviation^2, 1e-4)`,
  `mean += rate (mean_g[a_g (p_g - mean) / v] - anchor (mean - p))`, clamped, with p the ratio in the books,
  `deviation = max(1e-3, deviation + rate mean_g[a_g ((p_g - mean)^2 / v - 1)] + entropy)`, with the old mean on the right.
- The candidate of the best reward is committed if this is at least 0: its own mask is in force from then on, after every step; the
  ratio in the books moves towards it by at most 0.10. Entries newly pruned go to the stash, their moments become 0, and the step
  counter of Adam becomes 0 for all. Nothing else clears a moment, and nothing trains the stash.
- The answer is the candidate with the best reward of all rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Text = tuple[Sequence[int], int]
"""Tokens, and where the completion begins in them; all texts are of one length, and so are all completions."""


@dataclass(frozen=True)
class Settings:
    """Numbers of the search: those of the paper, but for what a tiny model needs."""

    learning_rate: float
    learning_rate_decay: float
    interval_steps: int = 10
    low: float = 0.10
    high: float = 0.80
    start: float = 0.40
    deviation: float = 0.70 / 6
    policy_rate: float = 0.05
    anchor: float = 0.05
    entropy: float = 0.01
    max_change: float = 0.10


@dataclass(frozen=True, eq=False)
class PublishedRound:
    """What a round saw, decided, and left: `masks` are those in force after it, by name of the factor; empty before the first."""

    ratios: list[float]
    loss_before: float
    rewards: list[float]
    committed: bool
    ratio: float
    mean: float
    deviation: float
    masks: dict[str, Tensor]


def search(
    model: Any,
    adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
    train: Sequence[Text],
    micro_dev: Sequence[Text],
    epochs: Sequence[Sequence[int]],
    draws: Sequence[Sequence[float]],
    settings: Settings,
) -> tuple[list[PublishedRound], float]:
    """The rounds, and the answer.

    Args:
        model: a frozen causal language model of transformers.
        adapters: for each one, module path -> A [R, I] and B [O, R].
        train, micro_dev: examples.
        epochs: the order of the training examples in each pass over them.
        draws: for each round, a standard normal number a candidate.
        settings: numbers.
    """
    # `path.A.k` and `path.B.k`, k the adapter.
    weights = {
        f"{path}.{side}.{k}": value.clone().requires_grad_()
        for k, adapter in enumerate(adapters)
        for path, pair in adapter.items()
        for side, value in zip("AB", pair, strict=True)
    }
    first = {name: torch.zeros_like(value) for name, value in weights.items()}
    second = {name: torch.zeros_like(value) for name, value in weights.items()}
    stash = {name: torch.zeros_like(value) for name, value in weights.items()}
    masks: dict[str, Tensor] = {}
    size: dict[str, Tensor] = {}
    mean, deviation, in_books = settings.start, settings.deviation, settings.start
    counter = step = 0
    rounds: list[PublishedRound] = []
    for epoch, order in enumerate(epochs):
        rate = settings.learning_rate * settings.learning_rate_decay**epoch
        for index in order:
            loss = _loss(model, weights, len(adapters), [train[index]])
            gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
            counter, step = counter + 1, step + 1
            with torch.no_grad():
                for name, gradient in gradients.items():
                    first[name] = 0.9 * first[name] + 0.1 * gradient
                    second[name] = 0.999 * second[name] + 0.001 * gradient * gradient
                    rise = first[name] / (1 - 0.9**counter)
                    spread = (second[name] / (1 - 0.999**counter)).sqrt() + 1e-8
                    weights[name] -= rate * rise / spread
                    if masks:
                        weights[name][masks[name]] = 0.0
            if step % settings.interval_steps:
                continue
            # A round.
            if not size:
                size = {name: value.detach().abs() for name, value in weights.items()}
            drawn = draws[len(rounds)]
            ratios = [min(max(mean + deviation * z, settings.low), settings.high) for z in drawn]
            trials = [{name: _lowest(one, ratio) for name, one in size.items()} for ratio in ratios]
            with torch.no_grad():
                full = {name: torch.where(masks[name], stash[name], value) if masks else value for name, value in weights.items()}
                before = float(_loss(model, weights, len(adapters), micro_dev))
                rewards = [before - float(_loss(model, _without(full, trial), len(adapters), micro_dev)) for trial in trials]
            best = max(range(len(ratios)), key=rewards.__getitem__)
            baseline = sum(rewards) / len(rewards)
            variance = max(deviation**2, 1e-4)
            gain_mean = sum((r - baseline) * (p - mean) / variance for r, p in zip(rewards, ratios, strict=True)) / len(ratios)
            gain_deviation = sum(
                (r - baseline) * ((p - mean) ** 2 / variance - 1) for r, p in zip(rewards, ratios, strict=True)
            ) / len(ratios)
            deviation = max(1e-3, deviation + settings.policy_rate * gain_deviation + settings.entropy)
            moved = mean + settings.policy_rate * (gain_mean - settings.anchor * (mean - in_books))
            mean = min(max(moved, settings.low), settings.high)
            committed = rewards[best] >= 0
            if committed:
                change = ratios[best] - in_books
                in_books += math.copysign(min(abs(change), settings.max_change), change)
                for name, mask in trials[best].items():
                    newly = mask & ~masks[name] if masks else mask
                    stash[name] = torch.where(mask, full[name], 0.0).detach()
                    with torch.no_grad():
                        weights[name].copy_(torch.where(mask, 0.0, full[name]))
                    first[name][newly] = 0.0
                    second[name][newly] = 0.0
                masks, counter = trials[best], 0
            rounds.append(PublishedRound(ratios, before, rewards, committed, in_books, mean, deviation, masks))
    everything = [(reward, ratio) for one in rounds for reward, ratio in zip(one.rewards, one.ratios, strict=True)]
    return rounds, max(everything, key=lambda one: one[0])[1]


def _lowest(size: Tensor, ratio: float) -> Tensor:
    count = int(ratio * size.numel())
    return size <= size.flatten().kthvalue(count).values if count else torch.zeros_like(size, dtype=torch.bool)


def _without(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.where(masks[name], 0.0, value) for name, value in weights.items()}


def _loss(model: Any, weights: Mapping[str, Tensor], adapters: int, texts: Sequence[Text]) -> Tensor:
    """Mean negative log-likelihood of the completions' tokens, with the summed adapters on the model."""
    paths = list(dict.fromkeys(name.rsplit(".", 2)[0] for name in weights))
    hooks = []
    for path in paths:
        A = torch.stack([weights[f"{path}.A.{k}"] for k in range(adapters)]).sum(dim=0)
        B = torch.stack([weights[f"{path}.B.{k}"] for k in range(adapters)]).sum(dim=0)

        def add(module: Any, inputs: Any, output: Tensor, A: Tensor = A, B: Tensor = B) -> Tensor:
            return output + inputs[0] @ A.T @ B.T

        hooks.append(model.get_submodule(path).register_forward_hook(add))
    try:
        tokens, (start,) = torch.tensor([tokens for tokens, _ in texts]), {start for _, start in texts}
        logits = model(input_ids=tokens).logits
    finally:
        for hook in hooks:
            hook.remove()
    return F.cross_entropy(logits[:, start - 1 : -1].flatten(0, 1), tokens[:, start:].flatten())
