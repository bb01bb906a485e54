"""The identity of a base model, independent of its name and dtype: its sizes, and a hash of some of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from pomona.adapters.config import read_json_object
from pomona.adapters.tensors import DTYPES, read_header
from pomona.errors import InputError

_CONFIG, _SINGLE, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_SAMPLES = 32
"""Values that are read at each of a tensor's beginning, middle and end."""
# Names of a size in configs, in the order of the search.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "model_type": ("model_type",),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "vocabulary": ("vocab_size",),
}
_Sampled = tuple[str, tuple[int, ...], Callable[[int, int], Tensor]]
_SAID = {"model_type": "model type", "hidden_size": "hidden size", "layers": "layers", "vocabulary": "vocabulary size"}


@dataclass(frozen=True)
class BaseIdentity:
    """The values that distinguish base models; an unknown value is None.

    Args:
        model_type, hidden_size, layers, vocabulary: sizes of the text model, from its `config.json`.
        weights: `hash_of` its tensors.
    """

    model_type: str | None = None
    hidden_size: int | None = None
    layers: int | None = None
    vocabulary: int | None = None
    weights: str | None = None

    @classmethod
    def from_json(cls, values: object) -> BaseIdentity | None:
        """The identity from the result of `as_json`; None for any other value."""
        if not isinstance(values, Mapping):
            return None
        known = {}
        for one in fields(cls):
            value, kind = values.get(one.name), str if one.name in {"model_type", "weights"} else int
            known[one.name] = value if isinstance(value, kind) and not isinstance(value, bool) else None
        return cls(**known) if any(value is not None for value in known.values()) else None

    def as_json(self) -> dict[str, object]:
        """The identity in JSON's types."""
        return asdict(self)

    def differences(self, other: BaseIdentity) -> list[str]:
        """The known differences from another identity: `vocabulary size (300, here 320)`, `weights`."""
        found = []
        for name, said in _SAID.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and mine != theirs:
                found.append(f"{said} ({mine}, here {theirs})")
        if self.weights is not None and other.weights is not None and self.weights != other.weights:
            found.append("weights")
        return found


def identity_of_folder(folder: Path) -> BaseIdentity | None:
    """The identity of a model folder, from its config and some kilobytes of its weights; None if it is not a model folder."""
    try:
        config = read_json_object(folder / _CONFIG)
    except InputError:
        return None
    try:
        weights = hash_of(_stored(folder))
    except (InputError, OSError):  # other formats, or broken: the sizes alone are known
        weights = None
    return BaseIdentity(**sizes(config), weights=weights)  # pyright: ignore[reportArgumentType]


def identity_of_tensors(config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> BaseIdentity:
    """The identity of a model in memory: its config as `config.json` would have it, and its weights by name."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    entries = ((name, tuple(tensor.shape), _slices(tensor)) for name, tensor in floats.items())
    return BaseIdentity(**sizes(config), weights=hash_of(entries))  # pyright: ignore[reportArgumentType]


def _stored(folder: Path) -> Iterator[_Sampled]:
    """The float tensors in a model folder's safetensors files."""
    files = [folder / _SINGLE]
    if not files[0].is_file():
        named = read_json_object(folder / _INDEX).get("weight_map")
        files = [folder / str(name) for name in sorted(set(named.values()))] if isinstance(named, dict) else []
    for file in files:
        with FileIO(file) as stream:
            entries, _, start = read_header(file, stream)
            for name, entry in entries.items():
                if entry["dtype"] in DTYPES:
                    place = start + entry["data_offsets"][0]
                    yield name, tuple(entry["shape"]), partial(_read, stream, DTYPES[entry["dtype"]], place)


def _read(stream: FileIO, dtype: torch.dtype, place: int, start: int, end: int) -> Tensor:
    stream.seek(place + start * dtype.itemsize)
    data = bytearray(stream.read((end - start) * dtype.itemsize))
    if len(data) != (end - start) * dtype.itemsize:
        raise OSError("the file has been cut")
    return torch.frombuffer(data, dtype=dtype)


def sizes(config: Mapping[str, object]) -> dict[str, object]:
    """The fields of `BaseIdentity` in a config; if it contains a text model's config, those of the text model."""
    inner = config.get("text_config")
    level = inner if isinstance(inner, Mapping) else config
    return {field: next((level[name] for name in names if level.get(name) is not None), None) for field, names in _NAMES.items()}


def hash_of(tensors: Iterable[_Sampled]) -> str:
    """A hash of samples of every matrix and vector: their shapes, and values at their beginning, middle and end.

    Values are rounded to bfloat16, so that a copy in another dtype is the same model. Names and order do not count, because they
    differ between a hub's layout and that of transformers; equal tensors, such as tied ones, count once.

    Args:
        tensors: for each tensor its name, its shape, and a function that returns the values between two flat positions.
    """
    digests = set()
    for name, shape, values in tensors:
        if not 1 <= len(shape) <= 3 or 0 in shape or name.rpartition(".")[2] == "inv_freq":
            continue  # old files also hold attention masks and rotations
        digest = hashlib.sha256(str(tuple(shape)).encode())
        for start, end in _places(torch.Size(shape).numel()):
            rounded = values(start, end).float().bfloat16() + 0.0  # one zero
            digest.update(rounded.contiguous().view(torch.uint8).numpy().tobytes())
        digests.add(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _places(entries: int) -> list[tuple[int, int]]:
    """Flat positions of the samples; all positions of a small tensor."""
    if entries <= 3 * _SAMPLES:
        return [(0, entries)]
    middle = entries // 2
    return [(0, _SAMPLES), (middle, middle + _SAMPLES), (entries - _SAMPLES, entries)]


def _slices(tensor: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, end: tensor.detach().reshape(-1)[start:end].cpu()
