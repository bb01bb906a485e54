"""What the header of an adapter's safetensors file must say: pairs of factors, and nothing that a merge would lose.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE, LoraConfig
from pomona.adapters.keys import copied_module, is_name, parse_key
from pomona.adapters.order import model_order
from pomona.adapters.targets import HEAD
from pomona.adapters.tensors import DTYPES, TensorFile, TensorInfo
from pomona.errors import InputError

_AGAIN = "Copy the adapter again from its source"
_COMPILED = "_orig_mod"
# Part of a key -> (why a tensor of this name is refused, what to do)
_REFUSED_KEYS: Mapping[str, tuple[str, str]] = {
    ".lora_magnitude_vector": ("a DoRA magnitude: the adapter is not a low-rank update", "Train it again with use_dora false"),
    ".lora_B.bias": ("a bias of lora_B, which a merge would lose", "Train it again with lora_bias false"),
    ".lora_": ("a tensor that is no lora_A.weight or lora_B.weight", "Save the adapter with PEFT's save_pretrained"),
    ".embed_tokens.weight": (
        "a whole embedding: PEFT saves it where the vocabulary was resized, and new rows cannot be merged as factors",
        "If it was not resized, save the adapter with save_embedding_layers false",
    ),
}
_WHOLE_WEIGHT = (
    "not a LoRA factor but a weight of the model itself",
    "Train without modules_to_save and bias, and save with save_embedding_layers false",
)


def check_header(tensors: TensorFile, config: LoraConfig) -> tuple[dict[str, bool], list[str]]:
    """Check every tensor's name, shape and dtype, and the ranks against the config's. Reads no tensors.

    Returns:
        The modules in the model's order, each with whether it is an embedding; and those of them of whose frozen weights the file
        has copies.

    Raises:
        InputError: the first tensor that is not half of a pair of factors, or a pair that does not fit itself or the config.
    """
    sides: dict[str, dict[str, TensorInfo]] = {}
    kinds: dict[str, bool] = {}
    others: list[str] = []
    for key, info in tensors.info.items():
        if not is_name(key):
            raise InputError("a tensor's name is none that torch gives", file=tensors.file, value=key, mend=_AGAIN)
        parsed = parse_key(key)
        if parsed is None:
            others.append(key)
            continue
        if len(info.shape) != 2 or 0 in info.shape:
            raise InputError(
                "is not a matrix", file=tensors.file, field=key, value=info.shape, mend="Only linear modules can be merged"
            )
        if info.dtype not in DTYPES:
            raise InputError("has a dtype that is not fp32, fp16 or bf16", file=tensors.file, field=key, value=info.dtype)
        module, side, embedding = parsed
        if _COMPILED in module:
            problem = f"has {_COMPILED} in its path: the adapter was saved from a compiled model, and PEFT loads it into no other"
            mend = "Save the adapter from the model as it was before torch.compile"
            raise InputError(problem, file=tensors.file, field=key, mend=mend)
        if kinds.setdefault(module, embedding) != embedding:
            raise InputError("has the factors of a linear module and of an embedding", file=tensors.file, field=module, mend=_AGAIN)
        sides.setdefault(module, {})[side] = info
    copies = {_copied(key, kinds, tensors.file): key for key in others}
    if not sides:
        raise InputError("holds no LoRA tensors", file=tensors.file, mend="Save the adapter with PEFT's save_pretrained")
    for module in sides:
        _check_pair(tensors.file, module, sides[module], config.rank(module), embedding=kinds[module])
    for module, key in copies.items():
        _check_copy(key, tensors, sides[module], embedding=kinds[module])
    return {module: kinds[module] for module in sorted(kinds, key=model_order)}, sorted(copies, key=model_order)


def _copied(key: str, kinds: Mapping[str, bool], file: Path) -> str:
    """The adapted embedding or head of whose frozen weight this is a copy; any other tensor is refused."""
    module = copied_module(key)
    if module is None or module not in kinds or not (kinds[module] or module.rpartition(".")[2] == HEAD):
        problem, mend = next((reason for part, reason in _REFUSED_KEYS.items() if part in key), _WHOLE_WEIGHT)
        raise InputError(problem, file=file, field=key, mend=mend)
    return module


def _check_copy(key: str, tensors: TensorFile, pair: Mapping[str, TensorInfo], *, embedding: bool) -> None:
    O, I = pair["B"].shape[0], pair["A"].shape[1]  # noqa: E741 (axes)
    expected = (I, O) if embedding else (O, I)
    if tensors.info[key].shape != expected:
        problem = f"the copied weight is not {expected[0]} x {expected[1]} as the factors are"
        mend = "Use the adapter as it was before the vocabulary was resized"
        raise InputError(problem, file=tensors.file, field=key, value=tensors.info[key].shape, mend=mend)


def _check_pair(file: Path, module: str, pair: Mapping[str, TensorInfo], rank: int, *, embedding: bool) -> None:
    kind = "lora_embedding" if embedding else "lora"
    for present, missing in (("A", "B"), ("B", "A")):
        if missing not in pair:
            problem = f"has {kind}_{present} but no {kind}_{missing}"
            raise InputError(problem, file=file, field=module, mend="Save the adapter again")
    a_shape, b_shape = pair["A"].shape, pair["B"].shape
    if a_shape[0] != b_shape[1]:
        problem = f"{kind}_A {a_shape} and {kind}_B {b_shape} are not [r, in] and [out, r]"
        raise InputError(problem, file=file, field=module, mend="Save the adapter again")
    if a_shape[0] != rank:
        problem = f"has rank {a_shape[0]}, but {CONFIG_FILE} says {rank}"
        raise InputError(problem, file=file, field=module, mend="Correct r or rank_pattern in the config")
