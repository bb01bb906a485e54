"""Read a PEFT folder: `adapter_config.json` and `adapter_model.safetensors`, and check that they are consistent.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from pomona.adapters.config import CONFIG_FILE, LoraConfig, read_config
from pomona.adapters.embedded import embedded_folder, is_embedded
from pomona.adapters.experts import expert_of, unstack
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.full_tensors import FileTensors
from pomona.adapters.header import Pair, check_header
from pomona.adapters.hub import fetch, is_on_hub
from pomona.adapters.keys import TENSOR_FILE
from pomona.adapters.names import newer_spelling
from pomona.adapters.not_peft import by_number, no_config, no_factors
from pomona.adapters.same_base import stored_identity
from pomona.adapters.shapes import ShapedFactors, renamed
from pomona.adapters.tensors import TensorFile, all_finite
from pomona.errors import InputError
from pomona.patterns import TooSlowError
from pomona.plain_files import open_plain
from pomona.stand_ins import refuse_stand_in

_AGAIN = "Copy the adapter again from its source"


class FolderFactors(ShapedFactors):
    """The factors in a PEFT folder: shapes are known, and tensors are read on access.

    Only the stacked factors of one bare parameter are cached.
    """

    def __init__(self, tensors: TensorFile, config: LoraConfig, pairs: Mapping[str, Pair]) -> None:
        self._tensors = tensors
        self._config = config
        self._pairs = pairs
        self._stacked: tuple[Pair, list[Tensor]] | None = None

    def __getitem__(self, module: str) -> Factors:
        pair, expert = self._pairs[module], expert_of(module)
        A_RI, B_OR = self._read(pair, keep=expert is not None)
        if expert is not None:
            A_RI, B_OR = unstack(A_RI, B_OR, expert.number, expert.total)
        return Factors(A_RI, B_OR, self._config.scaling(pair.trained_as))

    def _read(self, pair: Pair, *, keep: bool) -> list[Tensor]:
        """A pair of the file; the last stacked pair is cached, because experts are read one after the other."""
        if not keep:
            return self._tensors.read(pair.A, pair.B)
        if self._stacked is None or self._stacked[0] != pair:
            self._stacked = pair, self._tensors.read(pair.A, pair.B)
        return self._stacked[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, module: object) -> bool:
        return module in self._pairs

    def shape(self, module: str) -> tuple[int, int]:
        """(O, I) of a module, without reading its tensors."""
        pair = self._pairs[module]
        return self._tensors.info[pair.B].shape[0], self._tensors.info[pair.A].shape[1]


def read_adapter(path: Path | str) -> Adapter:
    """Open a PEFT LoRA folder.

    The stacked factors of bare parameters (`target_parameters`) become one entry per expert: see `pomona.adapters.experts`.

    Config and header (keys, shapes, dtypes, ranks, targets) are checked immediately; tensors are read, and their values
    checked, on access. Modules are in the model's order (`model_order`), whatever their order in the file.

    A module that PEFT would ignore, because `target_modules` and related fields exclude it, is an error: the model would not use
    its factors. If embeddings are adapted, PEFT saves copies of their frozen weights with the factors
    (`...embed_tokens.base_layer.weight`). They belong to the base model and are not read. They differ from the base only if it was
    changed before the training (new tokens), so a warning names them.

    Args:
        path: the folder that holds `adapter_config.json` and `adapter_model.safetensors`, or a folder with exactly one such
            folder in it; or `hub:owner/name`, see `pomona.adapters.hub`; or `embedded:name`, see `pomona.adapters.embedded`.

    Returns:
        An adapter whose provenance holds `path` (for the hub the name there, and `folder` and `commit`), `fan_in_fan_out`,
            `task_type`, `revision` and `auto_mapping` (the last two if the config has them), `base` (the identity of its base
            model, if the folder has it), `warnings`, and
            `older_names`: its modules with older names in the file (`pomona.adapters.names`), if there are any.

    Raises:
        InputError: the folder cannot be read as plain LoRA factors of linear modules and embeddings, with the reason and the
            fix.
    """
    if is_embedded(path):
        adapter = _read(embedded_folder(path))
        return replace(adapter, provenance={**adapter.provenance, "path": str(path)})
    if not is_on_hub(path):
        return _read(Path(path))
    fetched = fetch(path)
    try:
        adapter = _read(fetched.folder)
    except InputError as error:
        raise InputError(str(error).replace(str(fetched.folder), fetched.name)) from error
    known = {"path": fetched.name, "folder": str(fetched.folder), "commit": fetched.commit}
    return replace(adapter, provenance={**adapter.provenance, **known})


def _read(path: Path) -> Adapter:
    try:
        folder = _folder(path)
        config_file, tensor_file = _files(folder)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from error
    config = read_config(config_file)
    tensors = TensorFile(tensor_file)
    try:
        header = check_header(tensors, config)
        names = [name for module, pair in header.pairs.items() for name in (pair.trained_as, module, newer_spelling(module))]
        config.targets.prepare(names)
    except TooSlowError as error:
        raise InputError(str(error), file=config_file) from error
    embeddings = frozenset(module for module, pair in header.pairs.items() if pair.embedding)
    factors = FolderFactors(tensors, config, header.pairs)
    for module, pair in header.pairs.items():
        if not pair.parameter:
            _check_target(factors, module, pair.trained_as, config, embeddings, config_file)
    names = _newer_names(header.pairs, tensor_file)
    older = [new for new, module in names.items() if new != module]
    provenance: dict[str, object] = {
        "path": str(folder),
        "fan_in_fan_out": config.fan_in_fan_out,
        **config.kept,
        **stored_identity(folder),
        **_saved(config, header.whole, config_file),
        "warnings": [
            *header.warnings,
            *config.warnings(pair.trained_as for pair in header.pairs.values()),
            *_copy_warnings(header.copies),
            *_tying_warnings(factors, config, embeddings),
            *_name_warnings(names, older),
        ],
    }
    whole = FileTensors(tensors, header.whole)
    if not older:
        return Adapter(factors, config.base_model, provenance, embeddings, whole)
    embeddings = frozenset(newer_spelling(module) for module in embeddings)
    return Adapter(renamed(factors, names), config.base_model, {**provenance, "older_names": older}, embeddings, whole)


def check_finite(adapter: Adapter) -> None:
    """Check every value of an adapter, one module at a time.

    Raises:
        InputError: a factor or a whole tensor holds NaN or infinite values; names the file or the module.
    """
    for module in adapter:
        factors = adapter[module]
        for side, matrix in (("A", factors.A), ("B", factors.B)):
            if not all_finite(matrix):
                raise InputError("holds NaN or infinite values", file=_origin(adapter), field=f"{module} {side}")
    for parameter, tensor in adapter.whole.items():
        if not all_finite(tensor):
            raise InputError("holds NaN or infinite values", file=_origin(adapter), field=parameter)


def _origin(adapter: Adapter) -> str | None:
    path = adapter.provenance.get("path")
    return None if path is None else str(path)


def _folder(path: Path) -> Path:
    """The folder itself, or its only subfolder with a config."""
    if not path.exists():
        raise InputError("no such folder", file=path, fix=f"Give a folder that holds {CONFIG_FILE} and {TENSOR_FILE}")
    if not path.is_dir():
        with open_plain(path) as stream:
            refuse_stand_in(path, stream.read(64))
        raise InputError("is a file", file=path, fix=f"Give the folder that holds {CONFIG_FILE} and {TENSOR_FILE}")
    if (path / CONFIG_FILE).is_file():
        return path
    inner = [one for one in path.iterdir() if not one.name.startswith(".") and (one / CONFIG_FILE).is_file()]
    inner.sort(key=by_number)
    if not inner:
        raise no_config(path, CONFIG_FILE)
    if len(inner) > 1:
        shown = ("..., " if len(inner) > 5 else "") + ", ".join(one.name for one in inner[-5:])
        raise InputError(f"holds {len(inner)} adapters: {shown}", file=path, fix=f"Give one of them: {inner[-1]}")
    return inner[0]


def _files(folder: Path) -> tuple[Path, Path]:
    config_file, tensor_file = folder / CONFIG_FILE, folder / TENSOR_FILE
    if not tensor_file.is_file():
        raise no_factors(folder)
    return config_file, tensor_file


def _check_target(
    factors: FolderFactors, module: str, trained_as: str, config: LoraConfig, embeddings: frozenset[str], file: Path
) -> None:
    embedding = module in embeddings
    left_out = [config.targets.leaves_out(name, embedding=embedding) for name in (trained_as, module, newer_spelling(module))]
    field = left_out[0] if None not in left_out else None
    if field is None or (config.ensure_weight_tying and _is_tied(factors, module, embeddings)):
        return
    problem = f"leaves out {module}, whose factors are in {TENSOR_FILE}: PEFT would not use them"
    raise InputError(problem, file=file, field=field, fix=f"Correct {field}, or take the factors out")


def _saved(config: LoraConfig, whole: Iterable[str], file: Path) -> dict[str, object]:
    """The `modules_to_save` that are in the file; PEFT also lists modules of other models, such as `classifier`."""
    modules = {parameter.rpartition(".")[0] for parameter in whole}
    inner = {module for one in modules for module in (one, one.rpartition(".")[0])}
    found = [name for name in config.modules_to_save if any(module.endswith(name) for module in inner)]
    if config.modules_to_save and not found:
        problem = f"names {', '.join(config.modules_to_save)}, of which {TENSOR_FILE} has no weights: PEFT would not load it"
        raise InputError(problem, file=file, field="modules_to_save", fix="Copy the adapter again from its source")
    return {"modules_to_save": found} if found else {}


def _is_tied(factors: FolderFactors, module: str, embeddings: frozenset[str]) -> bool:
    """Whether the module can be a head with the transposed factors of an embedding."""
    return module not in embeddings and any(factors.shape(one) == factors.shape(module)[::-1] for one in embeddings)


def _newer_names(modules: Mapping[str, object], file: Path) -> dict[str, str]:
    """Newer name -> name in the file, in order."""
    names: dict[str, str] = {}
    for module in modules:
        new = newer_spelling(module)
        if names.setdefault(new, module) != module:
            problem = f"is {new} under its older name, whose factors are in the file too: PEFT would use one of them"
            raise InputError(problem, file=file, field=min(module, names[new], key=lambda name: name == new), fix=_AGAIN)
    return names


def _name_warnings(names: Mapping[str, str], older: Sequence[str]) -> list[str]:
    if not older:
        return []
    more = f", and so {len(older) - 1} more" if len(older) > 1 else ""
    return [f"{names[older[0]]} is the older name of {older[0]} (transformers 5){more}: read under the newer one"]


def _copy_warnings(copies: Sequence[str]) -> list[str]:
    if not copies:
        return []
    return [
        f"the copies of the base model's own weights at {', '.join(copies)} are left out; if tokens were added to the "
        "vocabulary, the base model must have them"
    ]


def _tying_warnings(factors: FolderFactors, config: LoraConfig, embeddings: frozenset[str]) -> list[str]:
    if not config.ensure_weight_tying or not embeddings or any(_is_tied(factors, module, embeddings) for module in factors):
        return []
    return [
        "ensure_weight_tying is on but the file has no factors of the head: if the base model ties it to the embedding, PEFT "
        "updates the head too, and a merge does not"
    ]
