from __future__ import annotations

import pytest
from tests.adapters.builders import Q0, random_adapter

from pomona.adapters.export import problems_for


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (Q0, False),
        ("model.layers.0.block_sparse_moe.experts.3.w1", False),
        ("model.layers.0.mlp.experts.3.gate_proj", True),
        ("model.layers.0.mlp.shared_expert.gate_proj", False),
    ],
)
def test_experts_that_peft_cannot_place(module: str, found: bool) -> None:
    problems = problems_for("peft", random_adapter(0, modules=[Q0, module]))
    assert [module in problem for problem in problems] == ([True] if found else [])
