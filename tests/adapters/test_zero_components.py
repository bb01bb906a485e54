from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pomona.adapters import Adapter, Factors, read_adapter, without_zero_components, write_adapter

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
ENTRY = st.sampled_from([0.0, -0.0, 0.0, 1.0, -2.0, 0.5])


def _zeroed(seed: int, rows: list[int], columns: list[int], rank: int = 4, scaling: float = 2.0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    A, B = torch.randn(rank, 5, generator=generator), torch.randn(6, rank, generator=generator)
    A[rows] = 0.0
    B[:, columns] = 0.0
    return Factors(A, B, scaling)


@st.composite
def factors(draw: st.DrawFn) -> Factors:
    """Small factors of halves and whole numbers, whose products and sums are exact; many zeros."""
    rank = draw(st.integers(0, 4))

    def matrix(rows: int, columns: int) -> Tensor:
        values = draw(st.lists(ENTRY, min_size=rows * columns, max_size=rows * columns))
        return torch.tensor(values).reshape(rows, columns)

    return Factors(matrix(rank, 3), matrix(2, rank), draw(st.sampled_from([1.0, 0.5, 4.0])))


def test_by_hand() -> None:
    A = torch.tensor([[0.0, 1.0], [0.0, -0.0], [3.0, 0.0], [5.0, 5.0]])
    B = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 3.0, -0.0, 4.0]])
    smaller = without_zero_components(Adapter({Q: Factors(A, B, 2.0)}))
    assert smaller.modules == (Q,)
    assert smaller[Q].A.tolist() == [[0.0, 1.0], [5.0, 5.0]]
    assert smaller[Q].B.tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert smaller[Q].scaling == 2.0


@given(st.lists(factors(), min_size=1, max_size=3))
@settings(deadline=None, max_examples=100)
def test_the_update_is_unchanged_and_no_zero_component_is_left(pairs: list[Factors]) -> None:
    adapter = Adapter({f"layers.{place}.q_proj": pair for place, pair in enumerate(pairs)})
    smaller = without_zero_components(adapter)
    useful = {
        module: sum(bool(A_I.any()) and bool(B_O.any()) for A_I, B_O in zip(adapter[module].A, adapter[module].B.T, strict=True))
        for module in adapter
    }
    left = [module for module in adapter if useful[module]]
    assert list(smaller) == (left or [adapter.modules[0]])
    for module in adapter:
        if module in smaller:
            assert torch.equal(smaller[module].delta(), adapter[module].delta())
            assert smaller[module].rank == (useful[module] if left else 1)
        else:
            assert not adapter[module].delta().any()


def test_nothing_left_keeps_one_zero_component_of_the_first_module() -> None:
    adapter = Adapter({Q: _zeroed(0, [0, 1], [2, 3]), V: _zeroed(1, [0, 1, 2, 3], [])}, "base")
    smaller = without_zero_components(adapter)
    assert smaller.modules == (Q,)
    assert torch.equal(smaller[Q].A, torch.zeros(1, 5))
    assert torch.equal(smaller[Q].B, torch.zeros(6, 1))


def test_what_loses_nothing_is_the_same_and_nothing_is_changed_in_place() -> None:
    adapter = Adapter({Q: _zeroed(0, [], []), V: _zeroed(1, [0], [3])}, "base", {"method": "svd"}, frozenset({V, "gone"}))
    before = adapter.fingerprint()
    smaller = without_zero_components(adapter)
    assert smaller[Q] is adapter[Q]
    assert smaller[V].rank == 2
    assert adapter.fingerprint() == before
    assert (smaller.base_model, smaller.provenance, smaller.embeddings) == ("base", {"method": "svd"}, frozenset({V}))
    assert isinstance(smaller.embeddings, frozenset)


def test_dtype_stays_and_a_written_adapter_is_really_smaller(tmp_path: Path) -> None:
    pruned = {module: _zeroed(seed, [0, 2], [3], rank=8) for seed, module in enumerate((Q, V))}
    adapter = Adapter({module: Factors(one.A.bfloat16(), one.B.bfloat16()) for module, one in pruned.items()})
    smaller = without_zero_components(adapter)
    assert {smaller[module].A.dtype for module in smaller} == {smaller[module].B.dtype for module in smaller} == {torch.bfloat16}
    for name, one in (("before", adapter), ("after", smaller)):
        write_adapter(one, tmp_path / name)
    before, after = ((tmp_path / name / "adapter_model.safetensors").stat().st_size for name in ("before", "after"))
    assert before - after == 2 * 3 * (5 + 6) * 2  # modules, components, entries, bytes
    read = read_adapter(tmp_path / "after")
    assert [read[module].rank for module in read] == [5, 5]
    assert all(torch.allclose(read.delta(module), adapter.delta(module), rtol=0, atol=1e-6) for module in adapter)
