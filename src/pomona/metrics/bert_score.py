"""BERTScore, computed by the bert-score library, with an encoder from a folder or the hub.

Zhang, Kishore, Wu, Weinberger, Artzi, "BERTScore: Evaluating Text Generation with BERT" (2020).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64

from pomona.errors import InputError, MissingPackageError
from pomona.metrics.base import Metric, metrics
from pomona.metrics.encoder import Encoder, load_encoder
from pomona.metrics.text import primary_language


@metrics.register("bert_score")
@dataclass(frozen=True)
class BertScore(Metric):
    """BERTScore: F1 of words' embeddings, each matched with the most similar one of the other text.

    With embeddings x of the reference and y of the prediction, of unit length: `R = mean over x of max over y of x . y`,
    `P = mean over y of max over x of x . y`, `F = 2 P R / (P + R)` (equations 1 to 3); the reference with the highest F counts.
    There are no idf weights and no rescaling by a baseline. As in the library, the tokens that open and close a text do not count,
    but can be matched. A blank text, or a text without tokens, scores 0, and F is 0 if P or R is below 0. Texts are truncated to
    the encoder's longest input, or to 4,096 tokens.

    Only safetensors are read, and no code of a model's repository is run. The network is used only for hub ids.

    Args:
        language: language tag, which the encoder must support; it has no other effect.
        model: a folder in transformers' format or a hub id, such as `bert-base-multilingual-cased`; required.
        layer: the layer whose output is the embedding; default: the library authors' best layer for this hub id, else the last.
        batch_size: texts per batch, >= 1.
        device: `auto` (an accelerator if there is one), or a torch device.

    Raises:
        MissingPackageError: bert-score is not installed.
        InputError: no model given, or an argument out of its range.
    """

    language: str = "en"
    model: str | None = None
    layer: int | None = None
    batch_size: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        if importlib.util.find_spec("bert_score") is None:
            raise MissingPackageError(
                "the metric bert_score needs bert-score, which is not installed",
                fix='Install it with `pip install "pomona[bert-score]"`, or leave out the metric',
            )
        primary_language(self.language)
        if not self.model:
            raise InputError(
                "bert_score needs an encoder",
                field="model",
                value=self.model,
                fix="Give a folder or a hub id, such as bert-base-multilingual-cased",
            )
        if self.layer is not None and self.layer < 0:
            raise InputError("must be at least 0", field="layer", value=self.layer)
        if self.batch_size < 1:
            raise InputError("must be at least 1", field="batch_size", value=self.batch_size)

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """The F1 of the best reference, [1], in [0, 1]."""
        return self.table([prediction], [references])[0]

    def table(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64[np.ndarray, "N S"]:
        """The F1 of each example's best reference, [N, 1], in [0, 1]; the first call loads the encoder."""
        encoder = self._encoder()
        has_tokens = cache(encoder.has_tokens)
        pairs, owners = [], []
        for place, (prediction, theirs) in enumerate(zip(predictions, references, strict=True)):
            if not theirs:
                raise ValueError(f"example {place} has no references")
            found = [(_encodable(prediction), _encodable(reference)) for reference in theirs]
            pairs += [pair for pair in found if all(map(has_tokens, pair))]
            owners += [place] * (len(pairs) - len(owners))
        best_N1 = np.zeros((len(predictions), 1))
        # In batches, because the library keeps the embeddings of all texts of a call.
        for start in range(0, len(pairs), self.batch_size):
            scores = encoder.f_scores(pairs[start : start + self.batch_size], self.batch_size)
            np.maximum.at(best_N1[:, 0], owners[start : start + self.batch_size], scores)
        return best_N1

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """`100 * totals / counts`."""
        return 100.0 * totals[:, 0] / counts

    @property
    def signature(self) -> str:
        """The library's version and its settings; loads the encoder if the layer is not given."""
        import bert_score
        from bert_score.utils import trans_version

        layer = self._encoder().layer if self.layer is None else self.layer
        settings = f"model:{self.model}|layer:{layer}|idf:no|rescale:no|refs:best"
        return f"bert-score|v:{bert_score.__version__}|{settings}|transformers:{trans_version}"

    def _encoder(self) -> Encoder:
        assert self.model
        return load_encoder(self.model, self.layer, self.device)


def _encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which no tokenizer accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")
