"""Export of the base model with the update added to its weights: a model folder that needs no adapter.

Axes: N rows, M columns of a stored weight; R rank, I input features, O output features.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from pomona.adapters.base_modules import BaseModules, respelled
from pomona.adapters.config import CONFIG_FILE, read_json_object
from pomona.adapters.export.base import CONFIG
from pomona.adapters.export.base_folder import read_base_folder
from pomona.adapters.export.checkpoint import INDEX, Stored
from pomona.adapters.export.dequantise import write_dequantised
from pomona.adapters.export.output import refuse_output
from pomona.adapters.export.plan import Planned, plan_merge, resulting_config, vocabulary
from pomona.adapters.export.result import Export, refuse
from pomona.adapters.factors import Adapter
from pomona.adapters.quantised import is_bitsandbytes, refuse_quantised
from pomona.adapters.read import check_finite
from pomona.adapters.tensors import DTYPES, all_finite, bytes_of, write_safetensors
from pomona.errors import InputError
from pomona.plain_files import refuse_special
from pomona.whole_folders import whole_folder

LARGE_ROUNDING = 0.05
"""A larger relative loss from rounding to the base's dtype causes a warning."""

_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf"})


@dataclass(frozen=True)
class Rounding:
    """The share of the update that is lost by rounding to the base's dtype.

    Args:
        error: `||round(W + delta) - (W + delta)||_F / ||delta||_F` over all modules together; 0 if the update is zero.
        worst_module: the module with the largest relative error.
        worst_error: the relative error of this module.
    """

    error: float
    worst_module: str
    worst_error: float


@dataclass(frozen=True)
class _Update:
    """A module's update of a stored matrix: `left_NR @ right_RM`, in fp64."""

    module: str
    left_NR: Float[Tensor, "N R"]
    right_RM: Float[Tensor, "R M"]


def export_merged(adapter: Adapter, output: Path, base: Path, *, modules: BaseModules | None = None, force: bool = False) -> Export:
    """Write `W + delta` for every adapted module, and the rest of the base model unchanged.

    Each sum is computed in fp64, by blocks of rows, and rounded once to the base tensor's dtype. Memory holds one block and one
    module's factors. If the adapter changes a tied output head or token embedding, they become two tensors and
    `tie_word_embeddings` becomes false, so that an update of one does not change the other. A whole tensor of the adapter replaces
    that of the base, in the base's dtype; `vocab_size` is adjusted if it has more rows.

    Args:
        adapter: the adapter to add.
        output: the new model folder; it appears complete or not at all.
        base: the base model's folder: `config.json` and safetensors, in one file or in shards with an index. Its other files
            are copied, except weights in other formats.
        modules: the modules of the base model's class, if it is known; otherwise the headers of the files are used.
        force: replace an existing model folder at `output`.

    Returns:
        `details` contains `base`, `untied` and `rounding` (the fields of `Rounding`).

    Raises:
        InputError: the base is not such a folder or is quantised, a module has no weight of its shape in it, `output` exists,
            it cannot be written, or a sum is too large for the base's dtype.
    """
    target = output.resolve()
    if base.resolve() in {target, *target.parents} or target in base.resolve().parents:
        raise InputError("is the base model's own folder, contains it, or is inside it", file=output, fix="Choose another folder")
    refuse_output("merged", target, force=force, base=base)
    refuse(adapter, "merged", ())
    if (base / CONFIG).is_file() and is_bitsandbytes(read_json_object(base / CONFIG)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".dequantised-") as plain:
            write_dequantised(base, Path(plain))
            _copy_others(base, [path for path in _others(base) if path != base / CONFIG], Path(plain))
            done = export_merged(adapter, output, Path(plain), modules=modules, force=force)
        told = "the base's bitsandbytes codes were written as float weights, to which an update can be added"
        return replace(done, details={**done.details, "base": str(base)}, warnings=(told, *done.warnings))
    config = _config(base)
    opened = read_base_folder(base, modules)
    checkpoint = opened.checkpoint
    adapter = respelled(adapter, opened.modules)
    rows = vocabulary(adapter)
    files, untied = plan_merge(adapter, opened)
    written = resulting_config(config, files, rows, untied=untied)
    check_finite(adapter)
    others = _others(base)
    sums: dict[str, tuple[float, float]] = {}
    with whole_folder(target) as partial:
        _copy_others(base, others, partial)
        for file, plan in files.items():
            layout = {name: one.layout() for name, one in plan.items()}
            write_safetensors(partial / file, layout, checkpoint.metadata[file], _bytes(adapter, plan, sums))
        if checkpoint.sharded:
            _write_json(partial / INDEX, _index(base / INDEX, files))
        if written != config:
            _write_json(partial / CONFIG, written)
    rounding = _rounding(sums)
    details = {"base": str(base), "untied": untied, "rounding": asdict(rounding)}
    use = f"Load it with AutoModelForCausalLM.from_pretrained({str(output)!r})"
    rank = max(adapter[module].rank for module in adapter)
    return Export(output, len(adapter), rank, use, details, _warnings(rounding))


def _config(base: Path) -> dict[str, object]:
    file = base / CONFIG
    if base.suffix == ".gguf" or base.is_file():
        fix = "Give the model's folder with safetensors weights, or export the adapter with --for llama.cpp"
        raise InputError("is one file and not a model folder", file=base, fix=fix)
    if not file.is_file():
        raise InputError(f"has no {CONFIG}", file=base, fix="Give a model folder in transformers' format")
    config = read_json_object(file)
    refuse_quantised(config, file)
    return config


def _bytes(adapter: Adapter, plan: Mapping[str, Planned], sums: dict[str, tuple[float, float]]) -> Iterator[bytes | memoryview]:
    """The bytes of a file's tensors in sequence; adds each module's squared rounding error and squared delta to `sums`."""
    for one in plan.values():
        for part in _parts(one):
            if part.whole is not None:
                yield bytes_of(_rounded(adapter, part))
            elif part.module is None:
                yield from part.source.pieces()
            else:
                yield from _merged(part.source, _update(adapter, part.module, part), sums)


def _parts(planned: Planned) -> Iterator[Planned]:
    """The matrices of a tensor of experts in sequence; for any other tensor, the tensor itself."""
    if not planned.slabs:
        yield planned
        return
    whole = planned.source
    size = whole.nbytes // whole.shape[0]
    for number in range(whole.shape[0]):
        same = Planned(replace(whole, shape=whole.shape[1:], start=whole.start + number * size, nbytes=size))
        yield planned.slabs.get(number, same)


def _rounded(adapter: Adapter, one: Planned) -> Tensor:
    """A whole tensor in the base's dtype."""
    assert one.whole is not None
    rounded = adapter.whole[one.whole].cpu().to(DTYPES[one.source.dtype])
    if not all_finite(rounded):
        raise InputError(f"does not fit the base's {one.source.dtype}, nothing was written", field=one.whole)
    return rounded


def _update(adapter: Adapter, module: str, planned: Planned) -> _Update:
    factors = adapter[module]
    A_RI, B_OR = factors.A.detach().cpu().double(), factors.B.detach().cpu().double() * factors.scaling
    if planned.rows is not None:
        B_OR = B_OR[slice(*planned.rows)]
    return _Update(module, A_RI.T, B_OR.T) if planned.transposed else _Update(module, B_OR, A_RI)


def _merged(source: Stored, update: _Update, sums: dict[str, tuple[float, float]]) -> Iterator[bytes | memoryview]:
    lost = whole = 0.0
    for first, W_NM in source.row_blocks():
        delta_NM = update.left_NR[first : first + len(W_NM)] @ update.right_RM
        whole += float(delta_NM.square().sum())
        exact_NM = delta_NM.add_(W_NM)
        rounded_NM = exact_NM.to(W_NM.dtype)
        lost += float((rounded_NM.double() - exact_NM).square().sum())
        if not math.isfinite(lost):
            raise InputError(f"the sum does not fit the base's {source.dtype}, nothing was written", field=update.module)
        yield bytes_of(rounded_NM)
    before = sums.get(update.module, (0.0, 0.0))
    sums[update.module] = (before[0] + lost, before[1] + whole)


def _rounding(sums: Mapping[str, tuple[float, float]]) -> Rounding:
    shares = {module: math.sqrt(lost / whole) if whole else 0.0 for module, (lost, whole) in sums.items()}
    worst = max(shares, key=lambda module: shares[module])
    lost, whole = (sum(column) for column in zip(*sums.values(), strict=True))
    return Rounding(math.sqrt(lost / whole) if whole else 0.0, worst, shares[worst])


def _warnings(rounding: Rounding) -> tuple[str, ...]:
    if rounding.worst_error <= LARGE_ROUNDING:
        return ()
    return (
        f"rounding to the base's dtype loses {rounding.error:.1%} of the update, and {rounding.worst_error:.1%} at "
        f"{rounding.worst_module}; merge into an fp32 copy of the base, or serve the adapter beside it",
    )


def _others(base: Path) -> list[Path]:
    """All files of the base except weights, weight indices, an adapter's files and hidden files.

    Raises:
        InputError: a file is a link out of the model's folder (other than those of the hub cache), or cannot be copied.
    """
    found = []
    for path in sorted(base.rglob("*")):
        inside = path.relative_to(base)
        weight = path.suffix in _WEIGHTS or path.name.endswith(".index.json") or path.name == CONFIG_FILE
        if weight or path.is_dir() or any(part.startswith(".") for part in inside.parts):
            continue
        refuse_special(path)
        real = path.resolve()
        if path.is_file() and not any(real.is_relative_to(home) for home in _homes(base.resolve())):
            problem = f"is a link to {real}, which is outside the model's folder, and would be copied into the new one"
            raise InputError(problem, file=path, fix="Put the file itself in the place of the link, or remove the link")
        if path.is_file():
            found.append(path)
    return found


def _homes(base: Path) -> tuple[Path, ...]:
    """Where a model's files may lie: in its folder; of a snapshot in the hub's cache also among the repository's blobs."""
    return (base, base.parents[1] / "blobs") if base.parent.name == "snapshots" else (base,)


def _copy_others(base: Path, others: Iterable[Path], folder: Path) -> None:
    for path in others:
        inside = path.relative_to(base)
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / inside)


def _index(file: Path, files: Mapping[str, Mapping[str, Planned]]) -> dict[str, object]:
    index = read_json_object(file)
    metadata = index.get("metadata")
    size = sum(one.layout()[2] for plan in files.values() for one in plan.values())
    named = {name: home for home, plan in files.items() for name in plan}
    return {**index, "metadata": {**(metadata if isinstance(metadata, dict) else {}), "total_size": size}, "weight_map": named}


def _write_json(file: Path, content: Mapping[str, object]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
