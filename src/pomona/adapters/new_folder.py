"""Where a folder may be written: nothing else is overwritten by accident, and `--force` replaces what Pomona writes, no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE
from pomona.adapters.keys import TENSOR_FILE
from pomona.adapters.same_base import PROVENANCE_FILE
from pomona.errors import InputError
from pomona.whole_folders import is_leftover, remove_leftovers
from pomona.writable import check_writable

OWN_FILES = frozenset({CONFIG_FILE, TENSOR_FILE, PROVENANCE_FILE})
"""The files of an adapter folder that Pomona writes."""
CARD, CARD_ENDS = "README.md", "\nMade with Pomona."
"""The model card, and the beginning of its last line, by which Pomona knows its own from a person's."""
_NAMED = 3
"""Foreign files that a message names."""


def refuse_occupied(
    target: Path,
    *,
    force: bool,
    marker: str = CONFIG_FILE,
    kind: str = "adapter",
    own: Callable[[Path], bool] = lambda path: str(path) in OWN_FILES,
) -> None:
    """Refuse an occupied target, or one that cannot be written: before writing, and before any long work.

    Args:
        target: the folder to write.
        force: replace an existing folder of the same kind.
        marker: the file that identifies a folder of this kind.
        kind: the name of this kind of folder.
        own: whether Pomona writes a file into such a folder; its path is relative to the folder.

    Raises:
        InputError: the target exists and `force` is not given; it is not a folder of this kind, or holds other files, which
            would be deleted with it; the disk refuses.
    """
    check_writable(target)
    if target.parent.is_dir():
        remove_leftovers(target.parent, target.name)
    if target.exists() and not _is_empty_folder(target):
        if not force:
            raise InputError("already exists", file=target, fix="Choose another folder, or give --force to replace it")
        if not (target / marker).is_file():
            # Replacing deletes the old folder, so it must be of the same kind.
            raise InputError(f"is not an {kind} folder and will not be replaced", file=target, fix="Choose another folder")
        refuse_foreign(target, own)


def refuse_foreign(folder: Path, own: Callable[[Path], bool]) -> None:
    """Refuse to replace a folder that holds what Pomona did not write.

    Raises:
        InputError: it does; the message names such files.
    """
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    foreign = [str(path) for path in inside if not own(path) and not is_leftover(folder / path) and not _is_card(folder, path)]
    if foreign:
        others = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise InputError(
            f"also holds {', '.join(foreign[:_NAMED])}{others}, which Pomona does not write, and will not be replaced",
            file=folder,
            fix="Move these files elsewhere, or choose another folder",
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _is_card(folder: Path, path: Path) -> bool:
    """Whether a file is a model card that Pomona wrote."""
    try:
        return str(path) == CARD and CARD_ENDS in (folder / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
