"""The `random` metric: draws that differ between runs, modules and factors, and stay the same within a run."""

from __future__ import annotations

import torch
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples

from pomona.adapters.factors import Factors
from pomona.backbone.attach import attached
from pomona.control import Fixed
from pomona.importance import ModuleStatistics, importance_metrics
from pomona.pruning import pruned_count
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Fitted, Pruning, Tuning

RANDOM = importance_metrics.create("random")
FACTORS = Factors(torch.zeros(4, 500), torch.ones(300, 4))


def scores(seed: int) -> torch.Tensor:
    statistics = ModuleStatistics(torch.ones(500), torch.ones(4), seed=seed)
    return torch.cat([side.flatten() for side in RANDOM.scores(FACTORS, statistics)])


def test_scores_are_uniform_and_unrelated_to_the_values_and_to_each_other() -> None:
    drawn = scores(1)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) < 1
    assert abs(float(drawn.mean()) - 0.5) < 0.02  # five standard errors of 3,200 draws are 0.026
    assert abs(float(drawn.std()) - 12**-0.5) < 0.02
    other = torch.corrcoef(torch.stack([drawn, scores(2)]))[0, 1]
    assert abs(float(other)) < 0.09
    A, B = RANDOM.scores(Factors(torch.ones(4, 300), torch.ones(300, 4)), ModuleStatistics(torch.ones(300), torch.ones(4)))
    assert not torch.equal(A, B.T)


def trained(seed: int, epochs: int = 1) -> Fitted:
    backbone = tiny_backbone()
    with attached(backbone, [tiny_adapter(backbone, seed=1, rank=4)]) as attachment:
        settings = Tuning(epochs=epochs, batch_size=2, learning_rate=0.05)
        return fit(
            attachment, FitData(tiny_examples(4)), settings, pruning=Pruning(RANDOM), controller=Fixed(0.4), seed=seed, system="it"
        )


def zeros(fitted: Fitted) -> dict[str, torch.Tensor]:
    found = {f"{path}.A": fitted.adapter[path].A == 0 for path in fitted.adapter}
    return found | {f"{path}.B": fitted.adapter[path].B == 0 for path in fitted.adapter}


def test_the_mask_of_a_run_never_changes_and_has_the_exact_size() -> None:
    short, long, other = zeros(trained(0)), zeros(trained(0, epochs=3)), zeros(trained(1))
    assert all(torch.equal(mask, long[name]) for name, mask in short.items())
    for name, mask in short.items():
        assert int(mask.sum()) == pruned_count(0.4, mask.numel()), name
        assert not torch.equal(mask, other[name]), "another seed"
    first, second = [mask for name, mask in short.items() if name.endswith("q_proj.A")]
    assert not torch.equal(first, second), "every module has its own draws"
