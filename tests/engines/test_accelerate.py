"""What `accelerate launch` asks for by environment variables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_backbone
from tests.tuning.runs import TUNING, train

from pomona.control import Fixed
from pomona.engines import NATIVE, Accelerate, Engine, asked_for
from pomona.errors import InputError
from pomona.runs.environment import environment
from pomona.tuning.settings import Pruning

SHORT = dataclasses.replace(TUNING, epochs=1, dropout=0.0)
FLOAT32 = {torch.float32}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, NATIVE),
        ({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_FSDP": "false", "ACCELERATE_USE_CPU": "True"}, NATIVE),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, Accelerate("bf16")),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, Accelerate(sharded=True)),
        ({"ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": "bf16"}, Accelerate("bf16", sharded=True)),
    ],
    ids=str,
)
def test_the_environment_chooses_the_engine(given: dict[str, str], expected: Engine) -> None:
    assert asked_for(NATIVE, given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "ACCELERATE_MIXED_PRECISION: must be no or bf16"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "ACCELERATE_MIXED_PRECISION: must be no or bf16"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED: is not supported"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "ACCELERATE_USE_MEGATRON_LM: is not supported"),
    ],
    ids=str,
)
def test_what_pomona_does_not_do_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked_for(NATIVE, given)


def test_one_process_shards_nothing() -> None:
    engine = Accelerate(sharded=True)
    assert not engine.moves_together
    assert engine.map([1, 2], lambda items: [item + 1 for item in items]) == [2, 3]
    assert engine.share_of_passes([1, 2]) == [1, 2]


def test_the_record_names_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment()["mixed_precision"] is None
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert environment()["mixed_precision"] == "bf16"


def test_activations_are_in_bfloat16_and_what_is_kept_is_in_float32(tmp_path: Path) -> None:
    plain = tiny_backbone("llama")
    losses: list[list[Any]] = []
    for number, backbone in enumerate((plain, dataclasses.replace(plain, engine=Accelerate("bf16")))):
        read: set[tuple[bool, torch.dtype]] = set()
        module = backbone.model.get_submodule("model.layers.1.mlp.down_proj")

        def look(_: object, inputs: tuple[torch.Tensor, ...], read: set[tuple[bool, torch.dtype]] = read) -> None:
            read.add((torch.is_grad_enabled(), inputs[0].dtype))

        hook = module.register_forward_pre_hook(look)
        checkpoint = tmp_path / f"{number}.fit"
        fitted = train(backbone, tuning=SHORT, pruning=Pruning(), controller=Fixed(0.5), checkpoint=checkpoint)
        hook.remove()
        # Training passes, and the dev losses without a gradient: one precision.
        assert read == {(grad, torch.bfloat16 if number else torch.float32) for grad in (True, False)}
        kept = load_file(checkpoint)
        assert {tensor.dtype for name, tensor in kept.items() if name.startswith(("state/factors", "state/optimizer"))} == FLOAT32
        assert {tensor.dtype for name, tensor in kept.items() if "statistics" in name} == FLOAT32
        losses.append([event[key] for event in fitted.history for key in ("loss", "dev_loss") if key in event])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    with pytest.raises(InputError, match="belongs to another run"):
        train(plain, tuning=SHORT, pruning=Pruning(), controller=Fixed(0.5), checkpoint=tmp_path / "1.fit")
