"""Static merges: from several adapters to one, without the model."""

from __future__ import annotations

from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.breadcrumbs import Breadcrumbs
from pomona.merging.cart import Cart
from pomona.merging.concat import Concat
from pomona.merging.core_space import CoreSpace
from pomona.merging.ctm import Ctm
from pomona.merging.dare_linear import DareLinear
from pomona.merging.dare_ties import DareTies
from pomona.merging.della import Della
from pomona.merging.iso_c import IsoC
from pomona.merging.iso_cts import IsoCts
from pomona.merging.knots import Knots
from pomona.merging.lego import Lego
from pomona.merging.linear import Linear
from pomona.merging.magnitude_prune import MagnitudePrune
from pomona.merging.merge import merge
from pomona.merging.norm_weights import WeightRule, by_norm, harmonic_norm, norm_weights
from pomona.merging.pico import Pico
from pomona.merging.robust_merge import RobustMerge
from pomona.merging.svd import Svd
from pomona.merging.ties import Ties
from pomona.merging.tsv import Tsv
from pomona.merging.weights import Weight, check_weight, module_weights

__all__ = [
    "Breadcrumbs",
    "Cart",
    "Concat",
    "CoreSpace",
    "Ctm",
    "DareLinear",
    "DareTies",
    "Della",
    "IsoC",
    "IsoCts",
    "Knots",
    "Lego",
    "Linear",
    "MagnitudePrune",
    "MergeMethod",
    "Pico",
    "RobustMerge",
    "Svd",
    "Ties",
    "Tsv",
    "Weight",
    "WeightRule",
    "by_norm",
    "check_weight",
    "harmonic_norm",
    "merge",
    "merge_methods",
    "module_weights",
    "norm_weights",
]
