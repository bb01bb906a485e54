"""The norms of the adaptive merge's published code, for comparison with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomona.adapters import layer_number
from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.full_pass import without_dropout
from pomona.backbone.linear_modules import linear_shape
from pomona.backbone.load import Backbone
from pomona.backbone.statistics import Norms
from pomona.engines import NATIVE, Engine
from pomona.errors import InputError
from pomona.importance import ModuleStatistics


class PublishedNorms(Norms):
    """One norm vector a layer: L2 over the training set's tokens of the layer's input, after its norm without the weight.

    ALM (arXiv 2505.24174), as its code does it: `prepare` sends every example through the model by itself, and keeps all layers'
    hidden states on the CPU. The same vector stands for every adapted module of the layer. It is not what the modules read:
    the weight of the layer's norm scales that, feature by feature.

    Nothing is known of the hidden values A x: `hidden_norm_R` is 0, and a metric that reads it tells no entries of B apart.
    The published code's own metric, `delta_sensitivity`, does not read it.

    Args:
        attachment: whose modules are adapted.
        examples: the training set.
        engine: gives each rank its share of the examples, and joins the sums.

    Raises:
        InputError: an adapted module outside the layers, or of other input features than the hidden state has; layers without
            a norm.
    """

    def __init__(self, attachment: Attachment, examples: Sequence[Encoded], engine: Engine = NATIVE) -> None:
        self._attachment, self._engine = attachment, engine
        self._examples = examples
        self._norms: dict[int, nn.Module] = {}
        self._found: dict[int, Tensor] = {}
        self._width: int = attachment.backbone.model.config.get_text_config().hidden_size
        check_published(attachment.backbone, {path: linear_shape(layer.base)[1] for path, layer in attachment.layers.items()})
        for path in attachment.layers:
            number = layer_number(path)
            assert number is not None
            self._norms[number] = _input_norm(attachment, path, number)

    @torch.no_grad()
    def prepare(self) -> None:
        """Run the pass."""
        backbone = self._attachment.backbone
        states: dict[int, list[Tensor]] = {number: [] for number in self._norms}
        with without_dropout(self._attachment), self._engine.autocast(backbone.device):
            for example in self._engine.share_of_passes(self._examples):
                tokens = torch.tensor([example.tokens], device=backbone.device)
                seen = backbone.model.base_model(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states
                for number, kept in states.items():
                    kept.append(seen[number][0].cpu())
        squares = {number: self._squares(number, kept).to(backbone.device) for number, kept in states.items()}
        self._engine.sum_of_passes(list(squares.values()))
        self._found = {number: sums.sqrt() for number, sums in squares.items()}

    def _squares(self, number: int, kept: Sequence[Tensor]) -> Tensor:
        hidden_NH = torch.cat([torch.empty(0, self._width), *(state.float() for state in kept)])
        return _normalised(hidden_NH, self._norms[number]).square().sum(dim=0)

    def of(self, modules: Sequence[str]) -> ModuleStatistics:
        """See `Norms.of`."""
        by_module = {one: norm for one in modules for number, norm in self._found.items() if layer_number(one) == number}
        norms_MH = torch.stack(list(by_module.values()))
        return ModuleStatistics(norms_MH, norms_MH.new_zeros(len(modules), self._attachment.layers[modules[0]].effective().rank))


def check_published(backbone: Backbone, in_features: Mapping[str, int]) -> None:
    """Refuse modules that the published statistics do not know.

    Args:
        backbone: the model.
        in_features: module path -> its input features.

    Raises:
        InputError: a module outside the layers, or of other input features than the hidden state has.
    """
    width = backbone.model.config.get_text_config().hidden_size
    for path, features in in_features.items():
        if layer_number(path) is None or features != width:
            raise InputError(
                "the published statistics know only modules of a layer that read its hidden state",
                field=path,
                fix="Adapt q_proj, k_proj and v_proj alone, or use other statistics",
            )


def _input_norm(attachment: Attachment, path: str, number: int) -> nn.Module:
    """The first norm among the parts of the layer that a module is in."""
    parts = path.split(".")
    layer = attachment.backbone.model.get_submodule(".".join(parts[: parts.index(str(number)) + 1]))
    for part in layer.children():
        if "norm" in type(part).__name__.lower():
            return part
    raise InputError("the published statistics need a norm in every layer", field=path, fix="Use other statistics")


def _normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """What the norm does to x, without its weight and bias: layer norm where it is one, else root mean square."""
    eps = float(getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", 0.0))
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(x, x.shape[-1:], eps=eps)
    return F.rms_norm(x, x.shape[-1:], eps=eps)
