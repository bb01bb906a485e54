"""Adapters on the Hugging Face hub: PEFT's two files, safetensors only, and `pomona.json`, in the hub's cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pomona.adapters.config import CONFIG_FILE
from pomona.adapters.keys import PICKLE_FILE, TENSOR_FILE
from pomona.adapters.same_base import PROVENANCE_FILE
from pomona.errors import InputError

HUB = "hub:"
_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<subfolder>[^@]+?))?/?(?:@(?P<revision>.+))?")
_FORM = "Write hub:owner/name, hub:owner/name@revision or hub:owner/name/subfolder@revision"
_SHOWN = 5
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Fetched:
    """An adapter's folder in the cache.

    Args:
        name: the user's name of the adapter.
        folder: the folder with the two files.
        commit: the repository's commit, to which a branch or a tag was resolved.
    """

    name: str
    folder: Path
    commit: str


@dataclass(frozen=True)
class _Place:
    name: str
    repository: str
    subfolder: str
    revision: str | None


def is_on_hub(path: Path | str) -> bool:
    """Whether a path names an adapter on the hub. A local folder of that name is ignored."""
    return str(path).startswith(HUB)


def fetch(path: Path | str) -> Fetched:
    """Fetch `adapter_config.json`, `adapter_model.safetensors` and, if present, `pomona.json`, or find them in the cache.

    The cache is `huggingface_hub`'s own, and so are the settings: `HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT`. Without
    a network, the last known commit of a branch or tag is used.

    Args:
        path: `hub:owner/name`, with further parts for a subfolder, and with `@revision` (a branch, a tag or a commit) for another
            than main. As with folders, the only adapter in a subfolder is found without naming it.

    Raises:
        InputError: an invalid name; no such repository, revision or adapter; no network and not in the cache.
    """
    name = PurePosixPath(path).as_posix()
    match = _NAME.fullmatch(name)
    if match is None or ".." in name.split("/"):
        raise InputError("not an adapter of the hub", value=str(path), fix=_FORM)
    place = _Place(name, match["repository"], match["subfolder"] or "", match["revision"])
    config = _download(place, CONFIG_FILE)
    if config is None:
        place = _only_subfolder(place)
        config = _download(place, CONFIG_FILE)
    if config is None:
        raise InputError(f"has no {CONFIG_FILE}", file=name, fix="Give an adapter's repository or subfolder")
    root = config.parents[len(PurePosixPath(place.subfolder).parts)]
    at_commit = _Place(name, place.repository, place.subfolder, root.name)
    if _download(at_commit, TENSOR_FILE) is None:
        raise _no_tensors(place)
    _download(at_commit, PROVENANCE_FILE)
    return Fetched(name, config.parent, root.name)


def _download(place: _Place, file: str) -> Path | None:
    """The path of the downloaded file; None if the repository has no such file.

    Raises:
        InputError: no such repository or revision; it cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(place.repository, file, subfolder=place.subfolder or None, revision=place.revision))
    except LocalEntryNotFoundError as error:
        if _cached_adapters(place):
            return None
        raise _refused(place, error) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # the possible errors have no common class
        raise _refused(place, error) from error


def _only_subfolder(place: _Place) -> _Place:
    """The subfolder of the only adapter.

    Raises:
        InputError: there is none, or there are several.
    """
    found = sorted(
        str(parent) for one in _files(place) if (parent := PurePosixPath(one).parent) and PurePosixPath(one).name == CONFIG_FILE
    )
    below = [one for one in found if one.startswith(f"{place.subfolder}/" if place.subfolder else "") and one != "."]
    if not below:
        others = f": {_shown(found)}" if found else ""
        problem = f"has no {CONFIG_FILE}" + (f"; the repository has adapters in other folders{others}" if found else "")
        raise InputError(problem, file=place.name, fix=_FORM if found else "Give the repository of a PEFT adapter")
    if len(below) > 1:
        example = f"{HUB}{place.repository}/{below[-1]}" + (f"@{place.revision}" if place.revision else "")
        raise InputError(f"holds {len(below)} adapters: {_shown(below)}", file=place.name, fix=f"Give one of them: {example}")
    return _Place(place.name, place.repository, below[0], place.revision)


def _files(place: _Place) -> list[str]:
    """The paths in the repository, or, if it cannot be reached, in the cache."""
    from huggingface_hub import HfApi

    try:
        return [one.rfilename for one in HfApi().model_info(place.repository, revision=place.revision).siblings or ()]
    except Exception as error:
        cached = _cached_adapters(place)
        if cached:
            return cached
        raise _refused(place, error) from error


def _cached_adapters(place: _Place) -> list[str]:
    """The paths of configs in the cache's copy of the revision, as in the repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=place.repository, repo_type="model")
    revision = place.revision or constants.DEFAULT_REVISION
    reference = storage / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    root = storage / "snapshots" / commit
    return sorted(one.relative_to(root).as_posix() for one in root.rglob(CONFIG_FILE))


def _no_tensors(place: _Place) -> InputError:
    try:
        names = {PurePosixPath(one).name for one in _files(place) if str(PurePosixPath(one).parent) in {place.subfolder, "."}}
    except InputError:
        names = set()
    if PICKLE_FILE in names:
        problem = f"has its weights in {PICKLE_FILE} alone, a pickle, which can run code and is not fetched"
        fix = "Where you trust it, download its folder and run pomona convert FOLDER --output DIR"
        return InputError(problem, file=place.name, fix=fix)
    return InputError(f"has no {TENSOR_FILE}", file=place.name, fix="Give an adapter with safetensors weights")


def _refused(place: _Place, error: Exception) -> InputError:
    """The reason of the failure, in one line."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        problem, fix = "is no name of a repository", _FORM
    elif isinstance(error, errors.GatedRepoError):
        problem, fix = "is gated", "Ask for access on the hub, and set HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
        problem, fix = "no such repository on the hub", "Check owner and name; for a private one set HF_TOKEN"
    elif isinstance(error, errors.RevisionNotFoundError):
        problem, fix = f"the repository has no revision {place.revision}", "Give a branch, a tag or a commit that it has"
    elif constants.is_offline_mode():
        problem = "is not in the local hub cache, and HF_HUB_OFFLINE is set"
        fix = "Unset HF_HUB_OFFLINE to let it be downloaded, or give a folder"
    else:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
        problem = f"cannot be fetched, and is not in the local hub cache: {reason[:_LONGEST_REASON]}"
        fix = "Check whether the hub can be reached, or give a folder"
    return InputError(problem, file=place.name, fix=fix)


def _shown(names: list[str]) -> str:
    return ("..., " if len(names) > _SHOWN else "") + ", ".join(names[-_SHOWN:])
