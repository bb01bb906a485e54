"""The main road on the real embedded model: train, prune, export, and load the result with PEFT alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import texts_of

from pomona.adapters import Adapter, read_adapter, write_adapter
from pomona.backbone.attach import attached, new_adapter
from pomona.backbone.batches import encode
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone, load_backbone
from pomona.backbone.prompt_boundary import tokens_apart
from pomona.backbone.speed import NeededRows, Packing
from pomona.control import Grasp
from pomona.data import Example, examples, number_rows
from pomona.data.corpora import docstring_rows
from pomona.data.tasks import Summarization
from pomona.pruning import pruned_count
from pomona.seeding import stream
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Fitted, Pruning, Tuning

TASK = Summarization(max_new_tokens=12)
TARGETS = ("q_proj", "v_proj")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone()


@pytest.fixture(scope="module")
def rows() -> tuple[Example, ...]:
    return examples(number_rows(docstring_rows("numpy")), TASK, "docstrings of numpy")


def source(backbone: Backbone, index: int) -> Adapter:
    """An adapter with an effect, as if it had been trained."""
    generator = stream(0, "source", index)
    adapter = new_adapter(backbone, TARGETS, 8, 16, generator)
    for module in adapter:
        adapter[module].B.normal_(0, 0.02, generator=generator)
    return adapter


@pytest.fixture(scope="module")
def fitted(backbone: Backbone, rows: tuple[Example, ...]) -> Fitted:
    short = sorted(rows[:120], key=lambda example: len(example.prompt))[:18]  # most of this file's time is these steps
    train, _ = encode(short[:12], backbone.tokenizer, 256)
    micro_dev, _ = encode(short[12:], backbone.tokenizer, 256)
    controller = Grasp(interval_steps=1, candidates=2, settle_fraction=0.5)
    tuning = Tuning(epochs=2, batch_size=4, learning_rate=5e-4)
    with attached(backbone, [source(backbone, 0), source(backbone, 1)], dropout=tuning.dropout) as attachment:
        return fit(attachment, FitData(train, micro_dev), tuning, pruning=Pruning(), controller=controller)


def test_batches_of_the_real_model_are_packed_on_a_cpu_and_rows_left_out(backbone: Backbone) -> None:
    assert (Packing in backbone.speed) is (backbone.device.type == "cpu")
    assert NeededRows in backbone.speed


def test_training_on_the_real_model_learns_a_ratio_and_lowers_the_loss(fitted: Fitted) -> None:
    losses = [event["loss"] for event in fitted.history if event["kind"] == "step"]
    assert sum(losses[-3:]) < sum(losses[:3])  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert fitted.answer is not None
    assert 0.10 <= fitted.answer.prune_ratio <= 0.80
    assert sum(event["kind"] == "round" for event in fitted.history) == 3


def test_every_factor_has_exactly_as_many_zeros_as_the_ratio_says(fitted: Fitted) -> None:
    assert fitted.answer is not None
    assert len(fitted.adapter) == 60
    for module in fitted.adapter:
        for matrix in (fitted.adapter[module].A, fitted.adapter[module].B):
            # Two sources of one rank stand beside each other, and each loses its own share.
            assert int((matrix == 0).sum()) == 2 * pruned_count(fitted.answer.prune_ratio, matrix.numel() // 2)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_peft_alone_gives_the_same_logits_and_the_same_greedy_text(
    fitted: Fitted, backbone: Backbone, rows: tuple[Example, ...], tmp_path: Path
) -> None:
    from peft import PeftModel

    write_adapter(fitted.adapter, tmp_path / "adapter")
    adapter = read_adapter(tmp_path / "adapter")
    prompts = [example.prompt for example in rows[18:22]]
    batch = backbone.tokenizer(prompts[0], return_tensors="pt")
    with attached(backbone, [adapter]) as attachment:
        with torch.no_grad():
            ours = backbone.model(**batch).logits
        with attachment.folded():
            texts = texts_of(generate(backbone, prompts, max_new_tokens=12, batch_size=4, stop_at_line_end=False))

    theirs = PeftModel.from_pretrained(load_backbone().model, str(tmp_path / "adapter"))
    with torch.no_grad():
        assert torch.allclose(theirs(**batch).logits, ours, atol=1e-4, rtol=0)
    for prompt, text in zip(prompts, texts, strict=True):
        tokens = backbone.tokenizer(prompt, return_tensors="pt")
        output = theirs.generate(**tokens, max_new_tokens=12, do_sample=False, pad_token_id=backbone.tokenizer.pad_token_id)
        expected = backbone.tokenizer.decode(output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == expected


def test_prompt_and_completion_are_tokenised_as_if_they_stood_apart(backbone: Backbone, rows: tuple[Example, ...]) -> None:
    """Its tokenizer opens and closes a text with nothing, so that recorded runs do not hang on how the joint is found."""
    tokenizer: Any = backbone.tokenizer
    encoded, _ = encode(rows[:200], tokenizer, 1000)
    for example, found in zip(rows, encoded, strict=False):
        prompt, target = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (example.prompt, example.target))
        assert found.tokens == (*prompt, *target, tokenizer.eos_token_id)
        assert found.completion_start == len(prompt)

    @settings(max_examples=100, deadline=None)
    @given(
        st.text(max_size=40).map(str.rstrip).filter(bool), st.sampled_from([" ", "\n", "\n\n", "  ", "\t"]), st.text(max_size=40)
    )
    def any_text(prompt: str, between: str, answer: str) -> None:
        target = between + answer.strip()
        start, completion = tokens_apart(tokenizer, prompt, target, special=True)
        assert start == tokenizer(prompt)["input_ids"]
        assert completion == tokenizer(target, add_special_tokens=False)["input_ids"]

    any_text()
