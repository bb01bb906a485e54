from __future__ import annotations

import pytest
import torch

from pomona.merging import slabs
from pomona.merging.slabs import Slabs


def test_kept_tensors_are_equal_and_apart_from_their_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_SLAB_ENTRIES", 10)
    store = Slabs()
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(*shape, generator=generator) for shape in ((2, 3), (1, 4), (3, 1), (5, 5), (0, 7), (2, 2))]
    kept = [store.keep(tensor.T).T for tensor in given]
    expected = [tensor.clone() for tensor in given]
    for tensor in given:
        tensor.zero_()
    assert all(torch.equal(one, other) for one, other in zip(kept, expected, strict=True))
    # 6 + 4 fill the first slab, 3 open the second, 25 have one of their own, and 4 go behind nothing else.
    storages = [one.untyped_storage().data_ptr() for one in kept if one.numel()]
    assert [storages.index(one) for one in storages] == [0, 0, 2, 3, 4]
