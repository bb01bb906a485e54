"""Token ids that a model's embedding has no row for: a tokenizer may have more tokens than the model was made for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def embedding_rows(model: PreTrainedModel) -> int:
    """How many tokens the model has an embedding for: ids from 0 on."""
    weight = model.get_input_embeddings().weight
    return len(weight)  # pyright: ignore[reportArgumentType]


def padding_id(tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    """The tokenizer's own padding; any other id where the model has no row for it: padding is masked, and nothing reads it."""
    own: object = tokenizer.pad_token_id
    return own if isinstance(own, int) and 0 <= own < rows else 0


def refuse_unknown(tokens: Iterable[int], rows: int, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Refuse a text that has a token for which the model has no embedding.

    Args:
        tokens: the text's ids.
        rows: of the model's embedding.
        tokenizer: names the token.
        where: what the text is, for the message: `example 'x'`.

    Raises:
        InputError: it has one; names token and id, and how many rows there are.
    """
    unknown = next((token for token in tokens if not 0 <= token < rows), None)
    if unknown is not None:
        raise InputError(
            f"{where} has the token {tokenizer.convert_ids_to_tokens(unknown)!r} (id {unknown}), but the model's embedding has "
            f"{rows} rows, for ids below {rows}",
            field="model",
            fix="Use the tokenizer that the model was published with, or resize the model's embedding and train the new rows",
        )
