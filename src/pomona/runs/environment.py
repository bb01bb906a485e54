"""What a result depends on besides the recipe: versions, machine, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import tomllib
from pathlib import Path

PACKAGES = (
    "pomona",
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "numpy",
    "sacrebleu",
    "bert-score",
    "jieba",
    "fugashi",
    "nevergrad",
    "optuna",
)


def environment() -> dict[str, object]:
    """Versions of Python, of the packages that compute, of the commit, and what the machine offers to torch."""
    import torch

    from pomona.engines import NATIVE, asked_for

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "accelerator": str(accelerator) if accelerator else None,
        "accelerators": torch.accelerator.device_count() if accelerator else 0,
        "threads": torch.get_num_threads(),
        "processes": NATIVE.world_size,
        "mixed_precision": asked_for(NATIVE).mixed_precision,
        "git_commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that this code is at, where it is Pomona's own checkout; `-dirty` where tracked files differ from it.

    An environment within another project's repository is no checkout of Pomona, and says nothing of that project. No hook and no
    helper that a repository's settings name is run.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists() or not _is_checkout(root):
        return None
    quiet = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "--no-optional-locks")
    command = ["git", *quiet, "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--match="]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _is_checkout(root: Path) -> bool:
    """Whether this very file lies in `src/pomona` of a project that is called pomona."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):
        return False
    own = root / "src" / "pomona" / "runs" / Path(__file__).name
    return isinstance(project, dict) and project.get("name") == "pomona" and own.resolve() == Path(__file__).resolve()
