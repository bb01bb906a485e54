from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_chat_tokenizer, tiny_tokenizer

from pomona.backbone.batches import POOL_BATCHES, Encoded, collate, encode, evaluation_order, similar_order, training_order
from pomona.data import Example, Turn
from pomona.errors import InputError

BOS, EOS, PAD = 1, 2, 0


def example(prompt: str, target: str, name: str = "one") -> Example:
    return Example(id=name, prompt=prompt, target=target, references=(target,), document=prompt)


def plain(text: str) -> list[int]:
    """The text's tokens without special ones."""
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]


def test_prompt_and_completion_are_tokenised_apart_and_closed_by_the_end_token() -> None:
    (encoded,), cut = encode([example("Return th", "e sum of all values")], tiny_tokenizer(), 100)
    prompt = [BOS, *plain("Return th")]
    assert encoded.tokens == (*prompt, *plain("e sum of all values"), EOS)
    assert encoded.completion_start == len(prompt)
    assert cut == (0, 0)
    # Tokenised in one piece, a token would lie across the border: the test's text is one where that matters.
    assert plain("Return the sum of all values") != [*plain("Return th"), *plain("e sum of all values")]


def test_truncation_takes_the_beginning_of_the_prompt_but_its_opening_token_and_is_counted() -> None:
    long, short = example("abcdefghijklmnopqrstuvwxyz", "xyz", "long"), example("abc", "xyz", "short")
    room = 10
    encoded, cut = encode([long, short], tiny_tokenizer(), room)
    completion = [*plain("xyz"), EOS]
    assert encoded[0].tokens == (BOS, *plain("abcdefghijklmnopqrstuvwxyz")[-(room - len(completion) - 1) :], *completion)
    assert encoded[0].completion_start == room - len(completion)
    assert encoded[1].tokens == (BOS, *plain("abc"), *completion)
    assert cut == (1, 1 + len(plain(long.prompt)) - (room - len(completion)))


def test_the_body_of_a_prompt_makes_room_and_the_completion_stays_whole() -> None:
    """Every letter is a token here."""
    frame, target = "\n\nSummary:", " qq"
    given = dataclasses.replace(example("qxz" * 10 + frame, target), body=(0, 30))
    completion = [*plain(target), EOS]
    (encoded,), cut = encode([given], tiny_tokenizer(), 1 + 12 + len(plain(frame)) + len(completion))
    assert encoded.tokens == (BOS, *plain("qxz" * 4 + frame), *completion)
    assert encoded.completion_start == len(encoded) - len(completion)
    assert cut == (1, 18)


def test_a_conversation_is_encoded_up_to_the_end_of_the_answer_s_turn() -> None:
    tokenizer, end = tiny_chat_tokenizer(), 4
    given = Example("one", "Hi", "Ho", ("Ho",), "Hi", history=(Turn("system", "Brief."),))
    (encoded,), cut = encode([given], tokenizer, 100)
    prompt = "<s><|turn|>system\nBrief.<|end|>\n<|turn|>user\nHi<|end|>\n<|turn|>assistant\n"
    assert tokenizer.decode(list(encoded.tokens[: encoded.completion_start])) == prompt
    assert tokenizer.decode(list(encoded.tokens[encoded.completion_start :])) == "Ho<|end|>"
    assert (encoded.tokens[-1], cut) == (end, (0, 0))


def test_a_prompt_that_fits_exactly_is_not_cut() -> None:
    whole, _ = encode([example("abcdef", "xyz")], tiny_tokenizer(), 100)
    encoded, cut = encode([example("abcdef", "xyz")], tiny_tokenizer(), len(whole[0]))
    assert (encoded, cut) == (whole, (0, 0))


def test_a_completion_without_room_for_a_prompt_is_an_input_error() -> None:
    completion = len(plain("xyz")) + 1
    with pytest.raises(InputError, match=r"max_tokens: example 'one': its completion has 4 tokens.*\(got 4\)"):
        encode([example("abc", "xyz")], tiny_tokenizer(), completion)
    encoded, cut = encode([example("abc", "xyz")], tiny_tokenizer(), completion + 1)
    assert encoded[0].tokens == (*plain("c"), *plain("xyz"), EOS)
    assert cut == (1, 3)


def test_an_empty_prompt_without_an_opening_token_still_leaves_something_to_predict_from() -> None:
    """The first completion token is predicted from the one before it, so there must be one."""
    tokenizer = tiny_tokenizer()

    class Bare:
        """The tokenizer of a model that opens a text with nothing, as SmolLM2's."""

        eos_token_id = EOS

        def __call__(self, text: str, add_special_tokens: bool = True) -> object:
            return tokenizer(text, add_special_tokens=False)

    with pytest.raises(InputError, match="example 'one': its prompt is empty"):
        encode([example("", "xyz")], Bare(), 100)  # pyright: ignore[reportArgumentType]


def test_collate_pads_on_the_right() -> None:
    batch = collate([Encoded((5, 6, 7, 8), 3), Encoded((9, 10), 1)], PAD, torch.device("cpu"))
    assert batch.tokens.tolist() == [[5, 6, 7, 8], [9, 10, PAD, PAD]]
    assert batch.targets.tolist() == [3, 5]
    assert batch.content.tolist() == [[True] * 4, [True, True, False, False]]


def test_padding_that_is_also_the_end_token_does_not_hide_the_end() -> None:
    """Many models pad with their end token: the masks come from lengths, not from the padding's id."""
    batch = collate([Encoded((5, 6, EOS), 1), Encoded((7, EOS), 1)], EOS, torch.device("cpu"))
    assert batch.targets.tolist() == [1, 2, 4]
    assert batch.content.tolist() == [[True] * 3, [True, True, False]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 2**40))
def test_training_order_is_a_permutation_in_full_batches_fixed_by_its_generator(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    order = training_order(lengths, batch_size, torch.Generator().manual_seed(seed))
    assert sorted(index for batch in order for index in batch) == list(range(len(lengths)))
    sizes = sorted(map(len, order), reverse=True)
    assert sizes[:-1] == [batch_size] * (len(order) - 1)
    assert len(order) == -(-len(lengths) // batch_size)
    assert order == training_order(lengths, batch_size, torch.Generator().manual_seed(seed))


def test_training_order_differs_by_generator_and_groups_similar_lengths() -> None:
    lengths = [1, 100] * 8
    orders = [training_order(lengths, 4, torch.Generator().manual_seed(seed)) for seed in range(2)]
    assert orders[0] != orders[1]
    # One pool holds all sixteen: short and long are never padded to each other.
    assert len(lengths) == 4 * POOL_BATCHES
    for order in orders:
        assert all(len({lengths[index] for index in batch}) == 1 for batch in order)


def test_evaluation_order_is_longest_first_and_stable() -> None:
    assert evaluation_order([3, 9, 3, 5, 9], 2) == [[1, 4], [3, 0], [2]]
    assert evaluation_order([], 2) == []


def test_answering_batches_end_before_a_much_shorter_prompt() -> None:
    lengths = [30, 100, 95, 79, 81, 78, 20, 80]
    # 100 alone is less than a quarter of 8 rows; 79 is under 0.8 of 100; 30 and 20 are under 0.8 of 79, once two rows are there.
    assert similar_order(lengths, 8) == [[1, 2, 4, 7], [3, 5], [0, 6]]
    assert similar_order(lengths, 2) == [[1, 2], [4, 7], [3, 5], [0], [6]]
    assert similar_order(lengths, 1) == [[1], [2], [4], [7], [3], [5], [0], [6]]
    assert similar_order([], 4) == []


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 500), max_size=60), batch_size=st.integers(1, 20))
def test_answering_batches_hold_every_prompt_once_longest_first(lengths: list[int], batch_size: int) -> None:
    batches = similar_order(lengths, batch_size)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        kept = batch[-(-batch_size // 4) :]
        assert all(10 * lengths[index] >= 8 * lengths[batch[0]] for index in kept)
