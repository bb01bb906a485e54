"""How an answer is decoded: greedily, by beams, or by sampling, with the settings and the parts of transformers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import GenerationConfig, LogitsProcessorList

_LEAST = sys.float_info.min
_COLDEST = 1e-30
"""What a temperature is at least when logits are divided by it: as good as 0, and no quotient is infinite in single precision."""


@dataclass(frozen=True)
class Decoding:
    """Greedy by default. Names and meanings are those of transformers' `GenerationConfig`.

    Args:
        num_beams: beams of a beam search, >= 1; 1 is greedy decoding or sampling.
        length_penalty: of a beam search: above 0 it favours longer answers.
        temperature: 0 takes the likeliest token; above 0 a token is drawn, and this divides the logits.
        top_k: draw from the k likeliest tokens; 0 for all.
        top_p: draw from the fewest tokens whose probabilities add up to this, in (0, 1].
        repetition_penalty: divides the score of what has been said, > 0; 1 does nothing.
        no_repeat_ngram_size: no n-gram of this size comes twice; 0 does nothing.
        seed: of the draws, >= 0. An answer does not depend on what it shares a batch with.

    Raises:
        InputError: a value out of its range; beams together with draws.
    """

    num_beams: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in (("num_beams", 1), ("top_k", 0), ("no_repeat_ngram_size", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise InputError(f"a whole number of at least {minimum} is expected", field=name, value=value)
        infinity = float("inf")
        for name, low, high, wanted in (
            ("temperature", 0.0, infinity, "at least 0"),
            ("top_p", _LEAST, 1.0, "above 0 and at most 1"),
            ("repetition_penalty", _LEAST, infinity, "above 0"),
            ("length_penalty", -infinity, infinity, "finite"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or abs(value) == infinity:
                raise InputError(f"a number {wanted} is expected", field=name, value=value)
        if self.num_beams > 1 and self.samples:
            raise InputError(
                "a beam search draws nothing", field="temperature", value=self.temperature, fix="Set num_beams 1, or temperature 0"
            )

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature > 0

    @property
    def looks_back(self) -> bool:
        """Whether a token's score depends on which tokens came before it, beyond what the model makes of them."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0

    def config(self, *, max_new_tokens: int, pad: int, ends: list[int], bos: int | None) -> GenerationConfig:
        """As transformers takes it, but for the draws."""
        from transformers import GenerationConfig

        beams = {"length_penalty": float(self.length_penalty)} if self.num_beams > 1 else {}
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=self.num_beams,
            repetition_penalty=float(self.repetition_penalty),  # transformers refuses whole numbers
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            use_cache=True,
            pad_token_id=pad,
            bos_token_id=bos,
            eos_token_id=ends or None,
            **beams,
        )

    def processors(self) -> LogitsProcessorList:
        """What changes the scores of a token before the likeliest one is taken or one is drawn, in transformers' order.

        Those that transformers itself makes for a batch know its padding, and cannot go on where a row has left it.
        """
        from transformers import (
            LogitsProcessorList,
            NoRepeatNGramLogitsProcessor,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        found = LogitsProcessorList()
        if self.repetition_penalty != 1:
            found.append(RepetitionPenaltyLogitsProcessor(float(self.repetition_penalty)))
        if self.no_repeat_ngram_size:
            found.append(NoRepeatNGramLogitsProcessor(self.no_repeat_ngram_size))
        if self.samples:
            found.append(TemperatureLogitsWarper(max(float(self.temperature), _COLDEST)))
            if self.top_k:
                found.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1:
                found.append(TopPLogitsWarper(float(self.top_p)))
        return found
