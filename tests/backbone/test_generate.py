"""Answers in batches against transformers' own, one prompt at a time; and on a scripted model, when they end."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch
from tests.tiny import TARGETS, scripted_backbone, texts_of, tiny_adapter, tiny_backbone, tiny_chat_tokenizer, token_of
from tokenizers import processors

import pomona.backbone.generate as generation
from pomona.backbone.attach import attached
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import Generated, generate
from pomona.backbone.load import Backbone
from pomona.errors import InputError

PROMPTS = ["Return the sum of all values", "Raise", "a b c d e f g h i j k l m n o p q r s t", "日本語", "Compute the mean", "x"]


def one_by_one(backbone: Backbone, prompt: str, max_new_tokens: int) -> str:
    tokens = torch.tensor([backbone.tokenizer(prompt)["input_ids"]])
    output = backbone.model.generate(  # pyright: ignore
        input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=max_new_tokens, do_sample=False, use_cache=False
    )
    return backbone.tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True)  # pyright: ignore


def steps_of_transformers(backbone: Backbone, prompt: str, **settings: Any) -> tuple[int, ...]:
    """The tokens of transformers' own answer, up to the one that ended it."""
    tokens = torch.tensor([backbone.tokenizer(prompt)["input_ids"]])
    output: Any = backbone.model.generate(  # pyright: ignore[reportCallIssue]
        input_ids=tokens, attention_mask=torch.ones_like(tokens), do_sample=False, **settings
    )
    answer = output[0, tokens.shape[1] :].tolist()
    ends = settings.get("eos_token_id", [])
    return tuple(answer[: next((place for place, token in enumerate(answer, start=1) if token in ends), len(answer))])


def tokens_of(answers: list[Generated | None]) -> list[tuple[int, ...]]:
    assert all(answer is not None for answer in answers)
    return [answer.tokens for answer in answers if answer is not None]


def test_greedy_text_is_that_of_transformers_one_by_one(backbone: Backbone) -> None:
    expected = [one_by_one(backbone, prompt, 12) for prompt in PROMPTS]
    assert len(set(expected)) > 3
    for batch_size in (1, 4, 6):
        found = texts_of(generate(backbone, PROMPTS, max_new_tokens=12, batch_size=batch_size, stop_at_line_end=False))
        assert found == expected


def test_answers_are_in_the_order_of_the_prompts_and_batches_are_told(llama: Backbone) -> None:
    told: list[int] = []
    found = texts_of(generate(llama, PROMPTS, max_new_tokens=3, batch_size=4, stop_at_line_end=False, on_batch=told.append))
    backwards = texts_of(generate(llama, PROMPTS[::-1], max_new_tokens=3, batch_size=4, stop_at_line_end=False))
    assert found == backwards[::-1]
    assert told == [4, 2]


def test_no_prompts_no_answers(llama: Backbone) -> None:
    assert generate(llama, [], max_new_tokens=3, batch_size=4) == []


def test_an_empty_prompt_is_refused_where_the_tokenizer_opens_with_nothing(llama: Backbone) -> None:
    bare: Any = copy.deepcopy(llama.tokenizer)
    bare.backend_tokenizer.post_processor = processors.Sequence([])
    assert bare("")["input_ids"] == []
    with pytest.raises(InputError, match="prompt: an empty prompt"):
        generate(Backbone(llama.model, bare, "bare"), ["x", ""], max_new_tokens=3, batch_size=4)
    assert len(generate(llama, ["x", ""], max_new_tokens=3, batch_size=4)) == 2  # `<s>` is enough to go on from


SCRIPT = {
    "q": " ", " ": "x", "x": "y", "y": "\n", "\n": "x",  # a blank, an answer, a line end, and on and on
    "r": "\n",  # a line end first: the answer has not begun
    "s": "t", "t": "</s>", "</s>": "x",  # an end token, after which nothing counts
    "k": "l", "l": "k",  # never ends
}  # fmt: skip


def test_an_answer_ends_at_its_first_line_end_after_it_has_begun() -> None:
    backbone = scripted_backbone(SCRIPT)
    found = texts_of(generate(backbone, ["q", "r", "as", "k"], max_new_tokens=6, batch_size=4))
    assert found == [" xy\n", "\nxy\n", "t", "lklklk"]


def test_without_the_rule_an_answer_ends_at_the_end_token_or_the_limit_only() -> None:
    backbone = scripted_backbone(SCRIPT)
    found = texts_of(generate(backbone, ["q", "r", "as", "k"], max_new_tokens=6, batch_size=4, stop_at_line_end=False))
    assert found == [" xy\nxy", "\nxy\nxy", "t", "lklklk"]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_max_new_tokens_is_the_longest_answer(limit: int) -> None:
    (found,) = generate(scripted_backbone(SCRIPT), ["k"], max_new_tokens=limit, batch_size=1)
    assert found is not None
    assert (found.text, len(found.tokens), found.ended) == ("lklkl"[:limit], limit, False)


def test_a_row_that_has_ended_does_not_end_the_others() -> None:
    backbone = scripted_backbone(SCRIPT)
    together = texts_of(generate(backbone, ["s", "q", "k", "r"], max_new_tokens=5, batch_size=4))
    alone = [texts_of(generate(backbone, [prompt], max_new_tokens=5, batch_size=1))[0] for prompt in ("s", "q", "k", "r")]
    assert together == alone == ["t", " xy\n", "lklkl", "\nxy\n"]


def test_a_models_own_sampling_settings_do_not_steer_the_answer() -> None:
    """Published models carry a repetition penalty, a temperature, extra end tokens; greedy means the likeliest token."""
    backbone = tiny_backbone("llama")
    expected = texts_of(generate(backbone, PROMPTS, max_new_tokens=12, batch_size=3, stop_at_line_end=False))
    own = backbone.model.generation_config
    assert own is not None
    own.repetition_penalty, own.no_repeat_ngram_size = 9.0, 1
    own.do_sample, own.temperature, own.top_k = True, 5.0, 3
    assert texts_of(generate(backbone, PROMPTS, max_new_tokens=12, batch_size=3, stop_at_line_end=False)) == expected
    assert backbone.model.generation_config is own
    assert own.repetition_penalty == 9.0


# Rows that leave their batch --------------------------------------------------------------------------------------------


@pytest.fixture
def ends(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """End tokens, published with the model, by which the prompts' answers end at different steps, and one does not end."""
    free = [steps_of_transformers(backbone, prompt, max_new_tokens=16, eos_token_id=[]) for prompt in PROMPTS]
    found: list[int] = []
    for answer, step in zip(free[:-1], (2, 5, 8, 11, 14), strict=True):
        found += [token for token in answer[step:] if token not in free[-1]][:1]
    own = copy.deepcopy(backbone.model.generation_config)
    assert own is not None
    own.eos_token_id = [2, *found]
    monkeypatch.setattr(backbone.model, "generation_config", own)
    return [2, *found]


def test_answers_that_end_at_different_steps_are_those_of_transformers(backbone: Backbone, ends: list[int]) -> None:
    expected = [steps_of_transformers(backbone, prompt, max_new_tokens=16, eos_token_id=ends) for prompt in PROMPTS]
    assert len({len(answer) for answer in expected}) >= 3
    assert any(answer[-1] not in ends for answer in expected)
    for batch_size in range(1, 7):
        found = generate(backbone, PROMPTS, max_new_tokens=16, batch_size=batch_size, stop_at_line_end=False)
        assert tokens_of(found) == expected
        assert [answer.ended for answer in found if answer] == [answer[-1] in ends for answer in expected]


@pytest.mark.parametrize("length_penalty", [-1.0, 2.0])
def test_beams_are_those_of_transformers(backbone: Backbone, ends: list[int], length_penalty: float) -> None:
    settings: dict[str, Any] = {"num_beams": 3, "length_penalty": length_penalty}
    expected = [steps_of_transformers(backbone, prompt, max_new_tokens=8, eos_token_id=ends, **settings) for prompt in PROMPTS]
    assert expected != [steps_of_transformers(backbone, prompt, max_new_tokens=8, eos_token_id=ends) for prompt in PROMPTS]
    for batch_size in (1, 4):
        found = generate(
            backbone, PROMPTS, max_new_tokens=8, batch_size=batch_size, stop_at_line_end=False, decoding=Decoding(**settings)
        )
        assert tokens_of(found) == expected


def test_the_length_penalty_of_beams_has_its_effect() -> None:
    """An end at once has probability 0.55, and a longer answer 0.45: log(0.55) = -0.60, and log(0.45) / 3 = -0.27."""
    backbone = scripted_backbone({"k": {"</s>": 60.0, "l": 60.0 + math.log(0.45 / 0.55)}, "l": "m", "m": "m"})
    for length_penalty, expected in ((0.0, ""), (1.0, "lmm")):
        decoding = Decoding(num_beams=2, length_penalty=length_penalty)
        assert texts_of(generate(backbone, ["k"], max_new_tokens=3, batch_size=1, decoding=decoding)) == [expected]


def test_beams_end_at_line_ends_and_stop_texts_too() -> None:
    backbone = scripted_backbone(SCRIPT)
    found = generate(backbone, ["q", "r", "as", "k"], max_new_tokens=6, batch_size=4, decoding=Decoding(num_beams=2))
    assert texts_of(found) == [" xy\n", "\nxy\n", "t", "lklklk"]
    assert [answer.ended for answer in found if answer] == [True, True, True, False]
    assert found[0] is not None
    assert len(found[0].tokens) == 4
    stopped = generate(backbone, ["k", "q"], max_new_tokens=6, batch_size=2, stop=("kl",), decoding=Decoding(num_beams=2))
    assert texts_of(stopped) == ["l", " xy\n"]


def test_a_beam_that_has_ended_does_not_pay_for_what_would_come_after_it() -> None:
    """After its line end anything may come, as good as nothing else: that is no reason to prefer the beam that never ends."""
    likely, never = 60.0, 60.0 + math.log(0.45 / 0.55)
    backbone = scripted_backbone({"k": {"a": likely, "l": never}, "a": "\n", "l": "l"})
    decoding = Decoding(num_beams=2, length_penalty=0.0)
    assert texts_of(generate(backbone, ["k"], max_new_tokens=6, batch_size=1, decoding=decoding)) == ["a\n"]
    endless = generate(backbone, ["k"], max_new_tokens=6, batch_size=1, stop_at_line_end=False, decoding=decoding)
    assert texts_of(endless) == ["llllll"]


def test_a_stop_text_ends_an_answer_wherever_its_tokens_begin() -> None:
    backbone = scripted_backbone(SCRIPT)
    found = generate(backbone, ["q", "r", "k", "s"], max_new_tokens=9, batch_size=4, stop_at_line_end=False, stop=("y\n", "lkl"))
    assert texts_of(found) == [" x", "\nx", "", "t"]
    assert [len(answer.tokens) for answer in found if answer] == [4, 4, 3, 2]
    assert all(answer.ended for answer in found if answer)


def test_white_space_before_an_answer_is_no_stop_text() -> None:
    found = generate(
        scripted_backbone(SCRIPT), ["r", "q"], max_new_tokens=9, batch_size=2, stop_at_line_end=False, stop=("\n", " ")
    )
    assert texts_of(found) == ["\nxy", " xy"]


def test_the_template_s_end_of_turn_ends_an_answer() -> None:
    chat = tiny_chat_tokenizer()
    backbone = scripted_backbone({"k": "l", "l": "<|end|>", "<|end|>": "l"}, chat)
    (found,) = generate(backbone, ["k"], max_new_tokens=9, batch_size=1)
    assert found == Generated("l", (token_of("l", chat), token_of("<|end|>", chat)), True)


def test_prompts_may_be_tokens(llama: Backbone) -> None:
    tokens: Any = [llama.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    as_tokens = generate(llama, tokens, max_new_tokens=4, batch_size=3)
    assert as_tokens == generate(llama, PROMPTS, max_new_tokens=4, batch_size=3)
    # What stands in them is not opened once more.
    without_opening = generate(llama, [one[1:] for one in tokens], max_new_tokens=4, batch_size=3)
    assert without_opening != as_tokens


# The model is left as it was --------------------------------------------------------------------------------------------


def test_a_failure_leaves_the_model_s_own_settings(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    own = llama.model.generation_config

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the cable is loose")

    monkeypatch.setattr(llama.model, "forward", functools.wraps(llama.model.forward)(fails))
    with pytest.raises(RuntimeError, match="the cable is loose"):
        generate(llama, PROMPTS, max_new_tokens=3, batch_size=2)
    assert llama.model.generation_config is own


def test_a_folded_adapter_answers_as_an_attached_one_and_leaves_no_trace(backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    architecture = backbone.name.removeprefix("tiny-")
    adapter = tiny_adapter(backbone, seed=3, targets=TARGETS[architecture], size=0.3)
    bare = generate(backbone, PROMPTS, max_new_tokens=8, batch_size=4)
    with attached(backbone, [adapter]) as attachment:
        beside = generate(backbone, PROMPTS, max_new_tokens=8, batch_size=4)
        with attachment.folded():
            folded = generate(backbone, PROMPTS, max_new_tokens=8, batch_size=4)
    assert folded == beside != bare
    after = backbone.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert generate(backbone, PROMPTS, max_new_tokens=8, batch_size=4) == bare


# Memory -----------------------------------------------------------------------------------------------------------------

FULL = {
    "an accelerator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "Linux": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    "Windows": RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
}


def holding(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, rows: int, longest: int = 10_000, error: Any = None) -> list[int]:
    """Let the model hold that many rows, of that many tokens; returns the rows of each batch that is begun, as they come."""
    forward, batch, given = backbone.model.forward, generation._batch, []

    def begun(backbone: Backbone, prompts: Any, *rest: Any) -> Any:
        given.append(len(prompts))
        return batch(backbone, prompts, *rest)

    def limited(input_ids: torch.Tensor, **state: Any) -> Any:
        if len(input_ids) > rows or input_ids.shape[1] > longest:
            raise error or FULL["an accelerator"]
        return forward(input_ids=input_ids, **state)

    monkeypatch.setattr(backbone.model, "forward", functools.wraps(forward)(limited))
    monkeypatch.setattr(generation, "_batch", begun)
    return given


def test_the_system_s_own_words_are_among_them() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert any(part in str(caught.value) for part in ("can't allocate memory", "not enough memory"))


@pytest.mark.parametrize("system", FULL)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_where_memory_does_not_hold_a_batch_it_is_halved(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, rows: int, system: str
) -> None:
    expected = generate(llama, PROMPTS, max_new_tokens=4, batch_size=1, stop_at_line_end=False)
    given = holding(llama, monkeypatch, rows, error=FULL[system])
    told: list[int] = []
    found = generate(llama, PROMPTS, max_new_tokens=4, batch_size=6, stop_at_line_end=False, on_batch=told.append)
    assert found == expected
    assert sum(told) == len(PROMPTS)
    # Six rows, then three, then one, all that come later too; what was too much is tried once.
    assert given == {1: [6, 3, 1, 1, 1, 1, 1, 1], 2: [6, 3, 1, 1, 1, 1, 1, 1], 5: [6, 3, 3]}[rows]


def test_draws_are_the_same_in_halved_batches(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"max_new_tokens": 4, "batch_size": 6, "decoding": Decoding(temperature=1.0)}
    expected = generate(llama, PROMPTS, **arguments)
    holding(llama, monkeypatch, 2)
    assert generate(llama, PROMPTS, **arguments) == expected


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_prompt_that_never_fits_has_no_answer_and_the_others_have(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, num_beams: int
) -> None:
    decoding = Decoding(num_beams=num_beams)
    expected = generate(llama, PROMPTS, max_new_tokens=4, batch_size=1, decoding=decoding)
    holding(llama, monkeypatch, 100, longest=30)
    told: list[int] = []
    found = generate(llama, PROMPTS, max_new_tokens=4, batch_size=4, decoding=decoding, on_batch=told.append)
    assert found == [*expected[:2], None, *expected[3:]]
    assert sum(told) == len(PROMPTS)


def test_the_model_s_own_settings_are_back_after_memory_ran_out(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    own = llama.model.generation_config
    holding(llama, monkeypatch, 0)
    assert generate(llama, PROMPTS, max_new_tokens=4, batch_size=4) == [None] * 6
    assert llama.model.generation_config is own
