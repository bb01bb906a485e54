"""Static merges: adapters in, one adapter out, without the model."""

from __future__ import annotations

from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.concat import Concat
from pomona.merging.linear import Linear
from pomona.merging.merge import merge
from pomona.merging.svd import Svd

__all__ = ["Concat", "Linear", "MergeMethod", "Svd", "merge", "merge_methods"]
