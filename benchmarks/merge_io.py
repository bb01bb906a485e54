"""Merging adapters of Llama 3 8B's shape, compared with only reading the inputs and writing an output of that size; and peak
memory.

The reference is the safetensors library: every input tensor into its own memory, and the result's tensors into a file. A second
reference copies bare bytes, without tensors. For all of them, files are in the page cache and not flushed to the disk. They are
measured alternately; the median of the ratios is reported. Peak memory is a fresh process's maximum above its memory after
importing torch and Pomona.
"""

from __future__ import annotations

import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.llama import ALL, QV, write_sources
from pomona.adapters import read_adapter, write_adapter
from pomona.merging import merge

PAIRS = 7
BOUNDS = {"concat": 2.0, "linear": 2.0, "svd": 4.0}
MEMORY_BOUND = 1.5
_TENSORS = "adapter_model.safetensors"

_CHILD = """
import json, sys
from pathlib import Path
import torch
from pomona.adapters import read_adapter, write_adapter
from pomona.merging import merge

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

method, output, *sources = sys.argv[1:]
# The first use of LAPACK and BLAS sets up their threads and buffers: that is torch's, not the merge's.
for dtype in (torch.float32, torch.float64):
    tall = torch.randn(4096, 128, dtype=dtype)
    torch.linalg.svd(tall.T @ tall)
    torch.linalg.cholesky_ex(tall.T @ tall)
before = peak()
write_adapter(merge([read_adapter(source) for source in sources], method), output)
print(json.dumps(peak() - before))
"""


def run() -> bool:
    """Print the ratios; whether each is within its bound."""
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        for title, shapes, rank in (("q and v, rank 8", QV, 8), ("all seven projections, rank 16", ALL, 16)):
            folder = Path(scratch) / str(rank)
            sources = write_sources(folder, shapes, rank)
            for method, bound in BOUNDS.items():
                met &= _time(title, method, bound, sources, folder / "merged")
                met &= _memory(title, method, sources, folder / "merged")
            shutil.rmtree(folder)
        many = write_sources(Path(scratch) / "many", ALL, 16, count=8)
        met &= _memory("eight adapters of all seven, rank 16", "svd", many, Path(scratch) / "merged")
    return met


def _time(title: str, method: str, bound: float, sources: list[Path], output: Path) -> bool:
    _merge(method, sources, output)
    size = (output / _TENSORS).stat().st_size
    tensors = {name: tensor.clone() for name, tensor in load_file(output / _TENSORS).items()}
    content = bytes(size)
    jobs: dict[str, Callable[[], None]] = {
        "merge": lambda: _merge(method, sources, output),
        "library": lambda: _by_library(sources, tensors, output),
        "bytes": lambda: _by_bytes(sources, content, output),
    }
    turns: list[dict[str, float]] = []
    for turn in range(PAIRS):
        order = list(jobs) if turn % 2 else list(jobs)[::-1]
        turns.append({name: _seconds(jobs[name], output) for name in order})
    merged, library, copied = (statistics.median(turn[name] for turn in turns) for name in ("merge", "library", "bytes"))
    ratio = statistics.median(turn["merge"] / turn["library"] for turn in turns)
    print(
        f"  {title}: {method:<7} {merged * 1e3:.0f} ms; reading and writing alone, {size / 1e6:.0f} MB out: "
        f"{library * 1e3:.0f} ms, ratio {ratio:.2f} (bound {bound}); bare bytes {copied * 1e3:.0f} ms",
        flush=True,
    )
    return ratio <= bound


def _seconds(job: Callable[[], None], output: Path) -> float:
    shutil.rmtree(output, ignore_errors=True)
    gc.collect()
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _merge(method: str, sources: list[Path], output: Path) -> None:
    write_adapter(merge([read_adapter(source) for source in sources], method), output, force=True)


def _by_library(sources: list[Path], tensors: dict[str, Tensor], output: Path) -> None:
    for source in sources:
        # Mapped only, they would not be read at all.
        _ = [tensor.clone() for tensor in load_file(source / _TENSORS).values()]
    output.mkdir()
    save_file(tensors, output / _TENSORS)


def _by_bytes(sources: list[Path], content: bytes, output: Path) -> None:
    for source in sources:
        (source / _TENSORS).read_bytes()
    output.mkdir()
    (output / _TENSORS).write_bytes(content)


def _memory(title: str, method: str, sources: list[Path], output: Path) -> bool:
    if not Path("/proc/self/status").exists():
        print("  no /proc here: peak memory is not measured")
        return True
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", _CHILD, method, str(output), *map(str, sources)]
    peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    size = (output / _TENSORS).stat().st_size
    print(f"  {title}: {method:<7} peak memory {peak / size:.2f} times the output's {size / 1e6:.0f} MB (bound {MEMORY_BOUND})")
    return peak <= MEMORY_BOUND * size


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
