from __future__ import annotations

import pytest

from pomona.control import Fixed, Grasp
from pomona.errors import InputError
from pomona.tuning.settings import Pruning

PAPER = Grasp(mode="two_pass", paper=True)


def test_what_a_controller_s_published_behaviour_changes() -> None:
    assert Pruning().following(Fixed(0.3)) == Pruning().following(Grasp()) == Pruning()
    assert Pruning().following(PAPER) == Pruning(masks="adapter", prunes_ties=True)
    assert Pruning().following(PAPER).following(Fixed(0.3)) == Pruning(masks="adapter", prunes_ties=True)
    assert Pruning(masks="merged").following(PAPER).masks == "merged"  # what is said is above what is published
    assert Pruning(granularity="rank").following(PAPER).masks is None
    assert Pruning().following(Grasp(published=("ties_pruned",))) == Pruning(prunes_ties=True)


@pytest.mark.parametrize(
    ("masks", "granularity", "kept_apart", "expected"),
    [
        (None, "parameter", True, True),
        (None, "parameter", False, False),
        (None, "rank", True, False),
        (None, "module", True, False),
        ("adapter", "parameter", False, True),
        ("merged", "parameter", True, False),
    ],
)
def test_when_each_adapter_has_masks_of_its_own(masks: str | None, granularity: str, kept_apart: bool, expected: bool) -> None:
    pruning = Pruning(masks=masks, granularity=granularity)  # pyright: ignore[reportArgumentType]
    assert pruning.by_adapter(kept_apart=kept_apart) is expected


def test_masks_by_adapter_are_of_entries() -> None:
    with pytest.raises(InputError, match=r"pruning\.masks: granularity 'rank' ranks parts of the merged .*\(got 'adapter'\)"):
        Pruning(masks="adapter", granularity="rank")
    with pytest.raises(InputError, match=r"pruning\.masks: must be one of merged, adapter \(got 'own'\)"):
        Pruning(masks="own")  # pyright: ignore[reportArgumentType]
