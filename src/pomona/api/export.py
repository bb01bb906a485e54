"""An adapter for another program, or merged into its base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pomona.adapters import Adapter, read_adapter
from pomona.adapters.base_identity import identity_of_folder
from pomona.adapters.export import (
    NEEDS_BASE,
    Compression,
    Export,
    check_target,
    compress,
    export_adapter,
    refuse_output,
)
from pomona.adapters.push import check_push
from pomona.adapters.same_base import Base, base_warnings
from pomona.api.base_model import base_path, called, find_base, table_of
from pomona.api.cards import write_card
from pomona.api.dtype import dtype_of
from pomona.backbone.embedded import NAME
from pomona.errors import spoken


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        export: output, number of modules, rank, how the other program loads it (`use`), and figures.
        compression: what a lower rank lost; None where every module kept its own.
        warnings: one sentence each.
    """

    export: Export
    compression: Compression | None
    warnings: tuple[str, ...]

    @property
    def output(self) -> Path:
        """The folder, or for llama.cpp the file."""
        return self.export.output

    @property
    def use(self) -> str:
        """How the other program loads it, in one sentence."""
        return self.export.use


def export(
    adapter: Adapter | Path | str,
    target: str,
    output: Path | str,
    *,
    rank: int | None = None,
    base: str | None = None,
    dtype: str | None = None,
    force: bool = False,
    push_to_hub: str | None = None,
) -> Exported:
    """Write an adapter for PEFT, vLLM or llama.cpp, or merge it into its base model.

    Args:
        adapter: an adapter, its folder, or `hub:owner/name`.
        target: `peft`, `vllm`, `llama.cpp`, or `merged`: the base model with the update added.
        output: the folder to make, or for llama.cpp the GGUF file.
        rank: compress every module to at most this rank.
        base: the base model, which merged and llama.cpp need: a folder, `embedded`, or for llama.cpp a GGUF file; by default the
            one that the adapter names, if it is here.
        dtype: `float32`, `bfloat16` or `float16` of what is written; not for merged, which keeps the base's.
        force: replace an output of the same kind that stands there.
        push_to_hub: `OWNER/NAME`, a repository of the hub to which the adapter with its card is uploaded.

    Raises:
        InputError: an unknown target or dtype, a missing base, or what this target refuses; nothing is written.
    """
    check_target(target)
    if push_to_hub is not None:
        check_push(push_to_hub)
    refuse_output(target, Path(output).resolve(), force=force)
    written = None if dtype is None else dtype_of(dtype)
    read = adapter if isinstance(adapter, Adapter) else read_adapter(adapter)
    found = _base(base, read, target)
    given, compression = (read, None) if rank is None else compress(read, rank)
    modules = None if found is None or not found.is_dir() else table_of(found, read.modules)
    done = export_adapter(given, target, output, base=found, modules=modules, dtype=written, force=force)
    warnings = [spoken(one) for one in done.warnings]
    if base is not None and found is not None:  # without a base the adapter's own is taken
        name = str(read.provenance.get("path", "the adapter"))
        warnings += base_warnings([(name, read)], Base(called(base), identity_of_folder(found)))
    origin = str(read.provenance["path"]) if "path" in read.provenance else None
    made = f"Exported for {target} by `pomona export`" + (f" at rank {rank}." if rank is not None else ".")
    use = {"vllm": done.use, "llama.cpp": done.use}.get(target)
    sources = [] if origin is None else [origin]
    write_card(given, output, made, sources=sources, whole=target == "merged", use=use, push_to_hub=push_to_hub)
    return Exported(done, compression, tuple(warnings))


def _base(given: str | None, adapter: Adapter, target: str) -> Path | None:
    """The base model's folder or file; None where it was not given and what the adapter names is not here."""
    if given is not None:
        return base_path(given)
    name = adapter.base_model
    # Converting the embedded model takes a while, so not for what can do without.
    if name is None or (name in {NAME, "embedded"} and target not in NEEDS_BASE):
        return None
    found = find_base(name)
    return found if found is not None and (found / "config.json").is_file() else None
