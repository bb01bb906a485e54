"""The output of an export: complete or not at all, and never over something else by accident."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE
from pomona.adapters.export.base import CONFIG, GGUF_MAGIC
from pomona.adapters.new_folder import refuse_occupied
from pomona.errors import InputError


def refuse_output(target: str, output: Path, *, force: bool) -> None:
    """Check an output path before an export, and before any long work that precedes it.

    Args:
        target: the kind of export: `llama.cpp` writes a file, the others a folder.
        output: the path to write.
        force: replace an existing output of the same kind.

    Raises:
        InputError: the path exists without `force`, or exists and is something else.
    """
    if target != "llama.cpp":
        marker, kind = (CONFIG, "exported model") if target == "merged" else (CONFIG_FILE, "adapter")
        refuse_occupied(output, force=force, marker=marker, kind=kind)
    elif output.is_dir():
        raise InputError("is a folder", file=output, fix="Name the GGUF file to write")
    elif output.exists():
        if not force:
            raise InputError("already exists", file=output, fix="Choose another file, or give --force to replace it")
        with output.open("rb") as stream:
            if stream.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise InputError("is not a GGUF file and will not be replaced", file=output, fix="Choose another file")


@contextmanager
def appearing_file(target: Path) -> Iterator[Path]:
    """A hidden file next to `target`, which replaces it when the block ends without an error and is otherwise removed.

    Raises:
        InputError: the file cannot be written.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target) from error
    finally:
        partial.unlink(missing_ok=True)
