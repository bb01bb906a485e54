"""The sizes that a model's `config.json` names: some no model has, and some its own weights contradict.

transformers makes the modules that a config asks for before it looks at the weights: a thousand million layers never end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pomona.adapters.export.checkpoint import Checkpoint
from pomona.errors import InputError

_CORRECT = "Correct it, or copy the model again from its source"
_MOST_LAYERS = 1000  # the deepest models have some 130
_LARGEST_SIZE = 2**24  # the largest vocabularies have some 300,000 tokens
_LARGEST_SHARE = 16  # of the longest side of a weight: no size that shapes a weight is longer; some are split or fused
_LAYERS = frozenset(
    {
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_decoder_layers"),
        *("num_encoder_layers", "num_nextn_predict_layers"),
    }
)
_SIZES = frozenset(
    {
        *("vocab_size", "hidden_size", "n_embd", "d_model", "hidden_dim", "intermediate_size", "n_inner", "ffn_dim", "d_ff"),
        *("num_attention_heads", "n_head", "num_heads", "num_key_value_heads", "head_dim", "moe_intermediate_size", "n_positions"),
        *("num_experts", "num_local_experts", "n_routed_experts", "shared_expert_intermediate_size", "n_ctx"),
    }
)


def refuse_sizes(config: Mapping[str, object], file: Path, checkpoint: Checkpoint | None = None) -> None:
    """Refuse a config whose model could not be made, in a time or a memory that anybody has.

    Args:
        config: what `config.json` holds.
        file: its path, for messages.
        checkpoint: the headers of the weights, where they are there.

    Raises:
        InputError: more layers than any model, or than the weights have tensors; a size beyond those of any model, or far beyond
            the longest side of the model's own weights.
    """
    tensors = checkpoint.tensors if checkpoint is not None else {}
    longest = max((side for stored in tensors.values() for side in stored.shape), default=0)
    for field, value in _whole_numbers(config):
        key = field.rpartition(".")[2]
        if value < 0 and key in _LAYERS | _SIZES:
            raise InputError("must not be below 0", file=file, field=field, value=value, fix=_CORRECT)
        if key in _LAYERS and value > (most := min(_MOST_LAYERS, len(tensors) or _MOST_LAYERS)):
            of = f"the weights have {most:,} tensors" if most < _MOST_LAYERS else f"no model has more than {most:,} layers"
            raise InputError(of, file=file, field=field, value=value, fix=_CORRECT)
        if key in _SIZES and value > (most := min(_LARGEST_SIZE, _LARGEST_SHARE * longest or _LARGEST_SIZE)):
            of = f"the longest side of a weight is {longest:,}" if most < _LARGEST_SIZE else f"no model has more than {most:,}"
            raise InputError(of, file=file, field=field, value=value, fix=_CORRECT)


def _whole_numbers(config: Mapping[str, object], within: str = "") -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield f"{within}{key}", value
        elif isinstance(value, Mapping):
            yield from _whole_numbers(value, f"{within}{key}.")
