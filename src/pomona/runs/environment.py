"""What a result depends on besides the recipe: versions, machine, commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
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

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "accelerator": str(accelerator) if accelerator else None,
        "accelerators": torch.accelerator.device_count() if accelerator else 0,
        "threads": torch.get_num_threads(),
        "git_commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that this code is at, where it is a checkout; `-dirty` where tracked files differ from it."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--match="]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
