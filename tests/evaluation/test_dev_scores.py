"""A task metric of each dev example by itself, of whatever is attached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sacrebleu
import torch
from tests.tiny import tiny_adapter, tiny_backbone

import pomona.evaluation.answers as module
from pomona.backbone.attach import attached
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone
from pomona.data import Example
from pomona.data.tasks import Summarization
from pomona.errors import PomonaError
from pomona.evaluation.dev_scores import dev_scores
from pomona.metrics import Chrf

TASK = Summarization(max_new_tokens=12)
PROMPTS = ["Compute the mean of the tensor:", "A short", "Raise an error if the file is missing, and keep the order:"]
EXAMPLES = [
    Example(str(place), prompt, " f(2)", ("the classes differ", "f(2) of all f"), prompt) for place, prompt in enumerate(PROMPTS)
]
OPTIONS: dict[str, Any] = {"batch_size": 2, "max_tokens": 64, "decoding": Decoding()}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


def test_the_scores_are_those_of_the_answers_one_by_one_in_order(backbone: Backbone) -> None:
    adapter = tiny_adapter(backbone, seed=1)
    tokens = torch.arange(3, 9)[None]
    with attached(backbone, [adapter]) as attachment:
        before = backbone.model(input_ids=tokens).logits
        scores = dev_scores(attachment, EXAMPLES, TASK, Chrf(), **OPTIONS)
        assert torch.equal(backbone.model(input_ids=tokens).logits, before)
        texts = [generate(backbone, [one.prompt], max_new_tokens=12, batch_size=1)[0] for one in EXAMPLES]
    answers = [TASK.parse(one.text) for one in texts if one is not None]
    expected = [sacrebleu.sentence_chrf(text, list(one.references)).score for text, one in zip(answers, EXAMPLES, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-6)
    assert len(set(scores)) > 1
    with attached(backbone, [tiny_adapter(backbone, seed=2)]) as attachment:
        assert dev_scores(attachment, EXAMPLES, TASK, Chrf(), **OPTIONS) != scores


def test_an_answer_that_memory_does_not_hold_is_an_error_not_a_zero(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_last(backbone: Backbone, prompts: Sequence[Any], **options: Any) -> list[Any]:
        return [*generate(backbone, prompts, **options)[:-1], None]

    monkeypatch.setattr(module, "generate", without_the_last)
    with attached(backbone, [tiny_adapter(backbone)]) as attachment:
        with pytest.raises(PomonaError, match=r"^1 of the examples that select_by judges by could not .*set select_by to loss"):
            dev_scores(attachment, EXAMPLES, TASK, Chrf(), **OPTIONS)
        assert not any(layer.folded for layer in attachment.modules.values())
