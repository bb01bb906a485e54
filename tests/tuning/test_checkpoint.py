from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tuning.runs import TUNING, train

import pomona.tuning.checkpoint as checkpoint_module
from pomona.backbone.load import Backbone
from pomona.errors import InputError
from pomona.stopping import Stopped, stoppable
from pomona.tuning.checkpoint import load_checkpoint, save_checkpoint
from pomona.tuning.settings import Event
from pomona.tuning.state import TrainState, random_state, restore_random_state, typed

CPU = torch.device("cpu")
SHORT = dataclasses.replace(TUNING, epochs=1)


def test_tensors_and_values_come_back_exactly(tmp_path: Path) -> None:
    tensors = {
        "float": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "scalar": torch.tensor(7.0, dtype=torch.float64),
        "mask": torch.tensor([[True, False]]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "a view": torch.arange(6.0).reshape(2, 3).T,
        "trained": torch.nn.Parameter(torch.ones(2)),
    }
    values = {"step": 3, "loss": 0.1 + 0.2, "none": None, "inf": math.inf, "list": [{"é": [1.5]}]}
    path = tmp_path / "deep" / "fit.safetensors"
    save_checkpoint(path, {"tensors": tensors, "values": values})
    got = load_checkpoint(path, CPU)
    loaded = got.pop("tensors")
    assert got == {"values": values}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
        assert not loaded[name].requires_grad


def test_tensors_that_share_memory_are_both_kept(tmp_path: Path) -> None:
    shared = torch.ones(3)
    save_checkpoint(tmp_path / "one", {"a": shared, "b": shared})
    assert torch.equal(load_checkpoint(tmp_path / "one", CPU)["b"], shared)


def test_a_kill_while_writing_leaves_the_last_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit.safetensors"
    save_checkpoint(path, {"x": torch.ones(2), "step": 1})

    def killed(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {"x": torch.zeros(2), "step": 2})
    found = load_checkpoint(path, CPU)
    assert (found["x"].tolist(), found["step"]) == ([1.0, 1.0], 1)
    save_checkpoint(path, {"x": torch.zeros(2), "step": 2})  # what the kill left behind is in nobody's way
    assert load_checkpoint(path, CPU)["step"] == 2
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def not_safetensors(path: Path) -> None:
    path.write_bytes(b"no checkpoint at all")


def empty(path: Path) -> None:
    path.touch()


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": 1}))


def of_another_program(path: Path) -> None:
    save_file({"x": torch.ones(2)}, path)


def with_broken_values(path: Path) -> None:
    save_file({"x": torch.ones(2)}, path, metadata={"pomona": "{"})


def cut_short(path: Path) -> None:
    save_checkpoint(path, {"x": torch.ones(200)})
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("write", [not_safetensors, empty, pickled, of_another_program, with_broken_values, cut_short])
def test_what_is_not_a_checkpoint_is_said_in_one_line(tmp_path: Path, write: object) -> None:
    path = tmp_path / "fit.safetensors"
    write(path)  # pyright: ignore[reportCallIssue]
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, CPU)
    assert str(caught.value) == f"{path}: not a checkpoint. Delete it to start this part of the run again."


def a_folder(path: Path) -> None:
    path.mkdir()


def flipped(path: Path) -> None:
    save_checkpoint(path, {"x": torch.ones(200)})
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)


def with_another_value(path: Path) -> None:
    save_checkpoint(path, {"x": torch.ones(2), "step": 17})
    path.write_bytes(path.read_bytes().replace(b"17", b"-7"))


@pytest.mark.parametrize(
    ("write", "problem"),
    [(a_folder, "not a checkpoint"), (flipped, "is not as it was written"), (with_another_value, "is not as it was written")],
)
def test_a_checkpoint_that_was_changed_is_refused(tmp_path: Path, write: object, problem: str) -> None:
    path = tmp_path / "fit.safetensors"
    write(path)  # pyright: ignore[reportCallIssue]
    with pytest.raises(InputError, match=rf"{problem}.*Delete it to start this part of the run again"):
        load_checkpoint(path, CPU)


def spoiled(state: TrainState, name: str) -> dict[str, Any]:
    """The state's fields with a fault of that name."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    factors = dict(state.factors)
    first = next(iter(factors))
    faults: dict[str, dict[str, Any]] = {
        "negative step": {"step": -1},
        "step beyond the end": {"step": 10**9},
        "step of another type": {"step": "many"},
        "unknown key": {"surprise": 1},
        "factor missing": {"factors": {name: one for name, one in factors.items() if name != first}},
        "factor too many": {"factors": factors | {"more": factors[first]}},
        "factor of one entry": {"factors": factors | {first: torch.ones(1)}},
        "optimizer empty": {"optimizer": {}},
        "transform missing": {"transforms": {}},
        "transform of another kind": {"transforms": {key: [1] for key in state.transforms}},
        "random state too short": {"random": {"cpu": torch.zeros(3, dtype=torch.uint8)}},
        "random state of floats": {"random": {"cpu": torch.zeros(5056)}},
        "no random state": {"random": {}},
    }
    return fields | faults[name]


@pytest.mark.parametrize(
    "fault",
    ["negative step", "step beyond the end", "step of another type", "unknown key", "factor missing", "factor too many",
     "factor of one entry", "optimizer empty", "transform missing", "transform of another kind", "random state too short",
     "random state of floats", "no random state"],
)  # fmt: skip
def test_a_whole_checkpoint_with_a_spoiled_state_is_refused(llama: Backbone, tmp_path: Path, stopped: Path, fault: str) -> None:
    """Its digest is right: another program, or another version, wrote it."""
    path = tmp_path / "fit.safetensors"
    found = load_checkpoint(stopped, CPU)
    state = typed(TrainState, found["state"])
    save_checkpoint(path, found | {"state": spoiled(state, fault)})
    before = torch.get_rng_state()
    with pytest.raises(InputError, match="does not hold a state of this run") as caught:
        train(llama, checkpoint=path, tuning=SHORT)
    torch.set_rng_state(before)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def stopped(llama: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a short run."""
    path = tmp_path_factory.mktemp("stopped") / "fit.safetensors"
    train(llama, checkpoint=path, tuning=SHORT)
    return path


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    save_checkpoint(path, {"x": torch.ones(2), "step": 1})
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    assert json.loads(header["__metadata__"]["pomona"]) == {"x": {"$tensor": "x"}, "step": 1}
    assert torch.equal(load_file(path)["x"], torch.ones(2))


def test_dropout_goes_on_from_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    torch.rand(7)
    save_checkpoint(tmp_path / "one", random_state(CPU))
    expected = [torch.nn.functional.dropout(torch.ones(50), 0.5) for _ in range(3)]
    torch.manual_seed(6)
    restore_random_state(load_checkpoint(tmp_path / "one", CPU), CPU)
    for one in expected:
        assert torch.equal(torch.nn.functional.dropout(torch.ones(50), 0.5), one)


def test_the_generator_of_the_runs_own_device_is_kept_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is resumed sees more GPUs, or fewer, or none, and lies on another one of them."""
    states = {number: torch.full((4,), number, dtype=torch.uint8) for number in range(8)}

    class Generators:
        @staticmethod
        def get_rng_state(device: torch.device) -> torch.Tensor:
            return states[device.index]

        @staticmethod
        def set_rng_state(state: torch.Tensor, device: torch.device) -> None:
            states[device.index] = state

    monkeypatch.setattr(torch, "get_device_module", lambda device: Generators)
    saved = random_state(torch.device("cuda:5"))
    assert sorted(saved) == ["cpu", "cuda"]
    restore_random_state(saved, torch.device("cuda:1"))
    assert {number: int(state[0]) for number, state in states.items()} == {**{n: n for n in range(8)}, 1: 5}
    restore_random_state(random_state(CPU), torch.device("cuda:2"))
    assert int(states[2][0]) == 2
    restore_random_state(saved, CPU)


def test_a_signal_leaves_the_checkpoint_of_the_step_that_it_came_in(llama: Backbone, tmp_path: Path) -> None:
    path, rare = tmp_path / "fit.safetensors", dataclasses.replace(TUNING, checkpoint_steps=100)
    whole = train(llama, tuning=rare)

    def stop(event: Event, _: object) -> None:
        if event["kind"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped), stoppable():
        train(llama, checkpoint=path, tuning=rare, look=stop)
    assert load_checkpoint(path, CPU)["state"]["step"] == 3
    assert train(llama, checkpoint=path, tuning=rare).adapter.fingerprint() == whole.adapter.fingerprint()
