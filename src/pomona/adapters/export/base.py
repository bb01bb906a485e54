"""The architecture and sizes of a base model, from `config.json` or the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pomona.adapters.config import read_json_object
from pomona.errors import InputError
from pomona.plain_files import refuse_special
from pomona.stand_ins import refuse_pointer

CONFIG = "config.json"
GGUF_MAGIC = b"GGUF"
"""The first bytes of a GGUF file."""


@dataclass(frozen=True)
class Architecture:
    """A family of models in llama.cpp.

    Args:
        gguf: name in llama.cpp.
        tied: whether the output head is the token embedding if `config.json` does not say.
        permuted: whether llama.cpp stores the rows of `q_proj` and `k_proj` in another order than transformers.
    """

    gguf: str
    tied: bool = False
    permuted: bool = False


# tests/adapters/export/test_llama_cpp_real.py compares each with a real llama.cpp.
ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", permuted=True),
    "MistralForCausalLM": Architecture("llama", permuted=True),
    "SmolLM3ForCausalLM": Architecture("smollm3", tied=True, permuted=True),
    "GraniteForCausalLM": Architecture("granite", permuted=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3"),
    "GemmaForCausalLM": Architecture("gemma", tied=True),
    "Gemma2ForCausalLM": Architecture("gemma2", tied=True),
    "Gemma3ForCausalLM": Architecture("gemma3", tied=True),
    "Phi3ForCausalLM": Architecture("phi3"),
    "GPT2LMHeadModel": Architecture("gpt2", tied=True),
}
"""Model class in transformers -> architecture in llama.cpp, for the classes that can be converted exactly."""


@dataclass(frozen=True)
class Base:
    """The properties of a base model that exports need.

    Args:
        path: the model folder or GGUF file.
        name: class name in `config.json` (`LlamaForCausalLM`), or architecture in a GGUF file (`llama`).
        architecture: name in llama.cpp; None if it is not one of `ARCHITECTURES`.
        layers: number of blocks; None if the config does not say. The same holds for the next three.
        heads, key_heads: attention heads of the queries and of the keys.
        head_size: features per head.
        tied: whether the output head is the token embedding.
        shapes: tensor -> (O, I) of a GGUF file; None for a folder.
    """

    path: Path
    name: str
    architecture: Architecture | None
    layers: int | None
    heads: int | None
    key_heads: int | None
    head_size: int | None
    tied: bool
    shapes: Mapping[str, tuple[int, int]] | None = None


def read_base(path: Path, *, sizes: bool = True) -> Base:
    """Read `config.json` of a model folder or the metadata of a GGUF file, without weights.

    Args:
        path: the folder or file.
        sizes: whether the config must contain the sizes of a model that llama.cpp knows; only the export for llama.cpp needs them.

    Raises:
        InputError: the path is neither, or the model's class or a required size is missing.
    """
    refuse_special(path)
    if path.is_file():
        return _from_gguf(path)
    file = path / CONFIG
    if not file.is_file():
        raise InputError("is neither a model folder nor a GGUF file", file=path, fix=f"Give a folder that holds {CONFIG}")
    config = read_json_object(file)
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise InputError("does not name the model's class", file=file, field="architectures", value=names)
    known = ARCHITECTURES.get(names[0])

    def size(*fields: str) -> int | None:
        """What the config says under the names that the models of `ARCHITECTURES` have for it; of other models nobody asks."""
        said = next((field for field in fields if config.get(field) is not None), fields[0])
        if sizes and known is not None:
            return _whole(config, file, said)
        return value if isinstance(value := config.get(said), int) else None

    heads, width = size("num_attention_heads", "n_head"), size("hidden_size", "n_embd")
    tied = config.get("tie_word_embeddings")
    return Base(
        path=path,
        name=names[0],
        architecture=known,
        layers=size("num_hidden_layers", "n_layer"),
        heads=heads,
        key_heads=heads if config.get("num_key_value_heads") is None else size("num_key_value_heads"),
        head_size=(width // heads if width and heads else None) if config.get("head_dim") is None else size("head_dim"),
        tied=tied if isinstance(tied, bool) else known is not None and known.tied,
    )


def _whole(config: Mapping[str, object], file: Path, *names: str) -> int:
    """The first of the fields that exists."""
    value = next((config[name] for name in names if name in config), None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError("must be a whole number of at least 1", file=file, field=names[0], value=value)
    return value


def _from_gguf(path: Path) -> Base:
    with path.open("rb") as stream:
        head = stream.read(64)
        if not head.startswith(GGUF_MAGIC):
            refuse_pointer(path, head)
            raise InputError("is not a GGUF file", file=path, fix=f"Give a GGUF file, or a folder that holds {CONFIG}")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        kept = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
        shapes = {tensor.name: (int(tensor.shape[1]), int(tensor.shape[0])) for tensor in reader.tensors if len(tensor.shape) == 2}
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise InputError(f"is not a valid GGUF file: {error}", file=path, fix="Copy it again from its source") from error
    name = kept.get("general.architecture")
    if not isinstance(name, str) or kept.get("general.type", "model") != "model":
        raise InputError("is not a model", file=path, field="general.type", value=kept.get("general.type"))
    heads = _whole(kept, path, f"{name}.attention.head_count")
    width = _whole(kept, path, f"{name}.embedding_length")
    return Base(
        path=path,
        name=name,
        architecture=next((known for known in ARCHITECTURES.values() if known.gguf == name), None),
        layers=_whole(kept, path, f"{name}.block_count"),
        heads=heads,
        key_heads=_whole({"": heads, **kept}, path, f"{name}.attention.head_count_kv", ""),
        head_size=_whole({"": width // heads, **kept}, path, f"{name}.attention.key_length", ""),
        tied="output.weight" not in shapes,
        shapes=shapes,
    )
