"""Readers on bytes that nobody wrote on purpose: a result or one `InputError`, whatever the bytes are.

A few examples in every run of the tests; `make soak` sets POMONA_FUZZ_EXAMPLES to 20000.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.adapters.builders import Q0, peft_config, write_folder
from tests.end_to_end.setting import recipe

from pomona.adapters import check_finite, read_adapter
from pomona.adapters.export import read_base
from pomona.adapters.export.checkpoint import read_checkpoint
from pomona.errors import InputError
from pomona.plain_text import is_plain
from pomona.runs.experiments.recipe import read_experiment
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe, TrainRecipe

EXAMPLES = int(os.environ.get("POMONA_FUZZ_EXAMPLES", "40"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

NUMBERS = st.one_of(st.integers(-3, 300), st.sampled_from([0, -1, 2**31, 2**32, 2**63, 2**64 - 1, 10**30]), st.floats())
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4))
)
# Where bytes are changed, as a share of the file, and what comes there.
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8), st.booleans()), min_size=1, max_size=4)


def changed(content: bytes, changes: list[tuple[float, bytes, bool]]) -> bytes:
    """The bytes with some put over them or in between."""
    for share, new, over in changes:
        at = round(share * len(content))
        content = content[:at] + new + content[at + len(new) * over :]
    return content


def read_or_refused(read: Callable[[], object]) -> None:
    """Call a reader; whatever it refuses, it says in one line that a terminal can show."""
    message = _refused(read)
    assert message is None or is_plain(message)


def _refused(read: Callable[[], object]) -> str | None:
    try:
        read()
    except InputError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("fuzz") / "adapter")


@pytest.fixture(scope="module")
def sound(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def read_whole(folder: Path) -> None:
    check_finite(read_adapter(folder))


@fuzz
@given(changes=CHANGES)
def test_safetensors_with_changed_bytes(changes: list[tuple[float, bytes, bool]], folder: Path, sound: bytes) -> None:
    (folder / "adapter_model.safetensors").write_bytes(changed(sound, changes))
    read_or_refused(lambda: read_whole(folder))


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "F64", "F16", "I8", "F8_E4M3", "Q4"]), SCALARS),
        "shape": st.one_of(st.lists(st.integers(-1, 12), max_size=3), VALUES),
        "data_offsets": st.one_of(st.tuples(st.integers(0, 400), st.integers(0, 400)), VALUES),
    }
)
KEYS = st.sampled_from([f"base_model.model.{Q0}.lora_{side}" for side in ("A.weight", "B.weight", "A.default.weight", "B")])


@fuzz
@given(
    entries=st.dictionaries(st.one_of(KEYS, st.text(max_size=12)), st.one_of(ENTRY, VALUES), max_size=4),
    length=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    body=st.integers(0, 800),
)
def test_safetensors_with_a_header_of_any_kind(entries: dict[str, Any], length: int | None, body: int, folder: Path) -> None:
    header = json.dumps(entries).encode()
    size = struct.pack("<Q", len(header) if length is None else length)
    (folder / "adapter_model.safetensors").write_bytes(size + header + bytes(body))
    read_or_refused(lambda: read_whole(folder))
    (folder / "model.safetensors").write_bytes(size + header + bytes(body))
    read_or_refused(lambda: read_checkpoint(folder))


FIELDS = st.sampled_from([*peft_config(), "layers_to_transform", "layers_pattern", "target_parameters", "use_dora"])


@fuzz
@given(
    changes=st.dictionaries(FIELDS, VALUES),
    extra=st.dictionaries(st.text(max_size=8), VALUES, max_size=2),
)
def test_a_config_with_values_of_any_kind(changes: dict[str, Any], extra: dict[str, Any], folder: Path, sound: bytes) -> None:
    (folder / "adapter_model.safetensors").write_bytes(sound)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(peft_config() | extra | changes))
    try:
        read_or_refused(lambda: read_whole(folder))
    finally:
        file.write_text(json.dumps(peft_config()))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "base.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_array("tokens", ["a", "b"])
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((8, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@fuzz
@given(changes=CHANGES)
def test_gguf_with_changed_bytes(changes: list[tuple[float, bytes, bool]], gguf_file: Path) -> None:
    other = gguf_file.with_name("other.gguf")
    other.write_bytes(changed(gguf_file.read_bytes(), changes))
    read_or_refused(lambda: read_base(other))


@fuzz
@given(
    counts=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    version=st.one_of(st.sampled_from([2, 3]), st.integers(0, 2**32 - 1)),
    rest=st.binary(max_size=200),
)
def test_gguf_with_a_head_of_any_kind(counts: tuple[int, int], version: int, rest: bytes, gguf_file: Path) -> None:
    other = gguf_file.with_name("other.gguf")
    other.write_bytes(b"GGUF" + struct.pack("<IQQ", version, *counts) + rest)
    read_or_refused(lambda: read_base(other))


PLACES = st.sampled_from([
    *("name", "seed", "model", "device", "dtype", "speed", "task", "data", "splits", "sources", "pool", "merge", "lora", "tuning"),
    *("pruning", "controller", "data.train", "search", "select_by", "select_tolerance", "reward", "evaluation"),
    *("tuning.epochs", "lora.rank", "merge.method", "sources.0", "evaluation.metrics", "controller.name", "task.name"),
])  # fmt: skip


@fuzz
@given(changes=st.dictionaries(PLACES, VALUES, min_size=1, max_size=3))
def test_a_recipe_with_values_of_any_kind(changes: dict[str, Any], folder: Path) -> None:
    content: dict[str, Any] = recipe()
    for key, value in changes.items():
        place: Any = content
        *path, last = key.split(".")
        for part in path:
            inner = place.setdefault(part, {}) if isinstance(place, dict) else None
            place = inner if isinstance(inner, dict) else place
        place[last] = value
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8", errors="replace")
    for kind in (Recipe, TrainRecipe):
        read_or_refused(lambda kind=kind: read_recipe(file, kind))
    read_or_refused(lambda: read_recipe(file, Recipe, [f"{key}={json.dumps(value)}" for key, value in changes.items()]))


@fuzz
@given(text=st.text(alphabet=st.sampled_from(list("abc:-[]{}&*!|>'\"#%@`, \n\t01.~<?")), max_size=60), changes=CHANGES)
def test_a_recipe_of_any_text(text: str, changes: list[tuple[float, bytes, bool]], folder: Path) -> None:
    file = folder / "recipe.yaml"
    for content in (text.encode(), changed(yaml.safe_dump(recipe()).encode(), changes)):
        file.write_bytes(content)
        read_or_refused(lambda: read_recipe(file, Recipe))
        read_or_refused(lambda: read_experiment(file))
