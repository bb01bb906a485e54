"""Upload a folder or a file to the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pomona.errors import InputError, PomonaError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_REASON = 300


def check_push(repository: str) -> None:
    """Refuse a push that cannot succeed, before any long work.

    Raises:
        InputError: no name of a repository; no token; the hub is switched off.
    """
    from huggingface_hub import constants, get_token

    if not _NAME.fullmatch(repository) or ".." in repository or repository.endswith(".git"):
        raise InputError("names no repository", field="--push-to-hub", value=repository, fix="Write OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise InputError("the hub is switched off", field="HF_HUB_OFFLINE", value="1", fix="Unset it, or leave out the push")
    if get_token() is None:
        raise InputError(
            "there is no token to write with", field="--push-to-hub", fix="Log in with `hf auth login`, or set HF_TOKEN"
        )


def push(path: Path | str, repository: str, *, private: bool | None = None, card: str | None = None) -> str:
    """Upload a folder, or a file, to a model repository of the hub, which is made if it is not there.

    The settings are those of `huggingface_hub`: its token (`hf auth login` or `HF_TOKEN`), `HF_ENDPOINT`. Hidden files and
    checkpoints stay here.

    Args:
        path: what to upload.
        repository: `OWNER/NAME`.
        private: of a new repository; None: what the owner's settings say, which is public where they say nothing.
        card: `README.md` of a file that has none beside it.

    Returns:
        Where it is.

    Raises:
        InputError: see `check_push`; nothing stands at `path`.
        PomonaError: the hub refuses, or cannot be reached. No message shows the token.
    """
    from huggingface_hub import HfApi, get_token

    check_push(repository)
    source = Path(path)
    if not source.exists():
        raise InputError("no such folder or file", file=source, fix="Give what `pomona` wrote")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        if source.is_dir():
            ignored = [".*", "**/.*", "checkpoint/**", "tensorboard/**", "wandb/**"]
            api.upload_folder(repo_id=repository, folder_path=source, commit_message="Upload with Pomona", ignore_patterns=ignored)
        else:
            api.upload_file(repo_id=repository, path_or_fileobj=source, path_in_repo=source.name)
            if card is not None:
                api.upload_file(repo_id=repository, path_or_fileobj=card.encode(), path_in_repo="README.md")
    except Exception as error:  # the possible errors have no common class
        told = f"{error} {error.__cause__ or ''}"
        reason = " ".join(told.split())[:_LONGEST_REASON].rstrip(".")
        shown = reason.replace(get_token() or "\0", "***")
        fix = "Check the name, the token's permission to write, and the network"
        raise PomonaError(f"could not be pushed to {repository}: {shown}", file=source, fix=fix) from None
    return str(made)
