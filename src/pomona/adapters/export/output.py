"""The output of an export: complete or not at all, and never over something else by accident."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pomona.adapters.export.base import CONFIG, GGUF_MAGIC
from pomona.adapters.export.checkpoint import INDEX
from pomona.adapters.new_folder import refuse_occupied
from pomona.errors import InputError
from pomona.whole_files import whole_file
from pomona.writable import check_writable


def refuse_output(target: str, output: Path, *, force: bool, base: Path | None = None) -> None:
    """Check an output path before an export, and before any long work that precedes it.

    Args:
        target: the kind of export: `llama.cpp` writes a file, the others a folder.
        output: the path to write.
        force: replace an existing output of the same kind.
        base: of a merged export, whose other files are copied; None: not known yet, and files that would go are looked at later.

    Raises:
        InputError: the path exists without `force`, or exists and is something else.
    """
    if target != "llama.cpp":
        if target == "merged":
            refuse_occupied(output, force=force, marker=CONFIG, kind="exported model", own=_of_model(base))
        else:
            refuse_occupied(output, force=force)
        return
    check_writable(output)
    if output.is_dir():
        raise InputError("is a folder", file=output, fix="Name the GGUF file to write")
    if output.exists():
        if not force:
            raise InputError("already exists", file=output, fix="Choose another file, or give --force to replace it")
        with output.open("rb") as stream:
            if stream.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise InputError("is not a GGUF file and will not be replaced", file=output, fix="Choose another file")


def _of_model(base: Path | None) -> Callable[[Path], bool]:
    """Whether a merged export of the base writes a file, by its path in the folder."""

    def own(path: Path) -> bool:
        return base is None or path.suffix == ".safetensors" or str(path) in {CONFIG, INDEX} or (base / path).is_file()

    return own


@contextmanager
def appearing_file(target: Path) -> Iterator[Path]:
    """A hidden file next to `target`, which replaces it when the block ends without an error and is otherwise removed.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as partial:
            yield partial
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target) from error
