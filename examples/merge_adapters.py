"""Merge adapters into one, look at what comes out, and compress it.

    python examples/merge_adapters.py ADAPTER ADAPTER... OUTPUT

An adapter is a PEFT folder, `hub:owner/name`, or one of the two that come with Pomona: embedded:docstrings-stdlib and
embedded:docstrings-torch. No base model is needed.
"""

from __future__ import annotations

import sys

import pomona


def main(adapters: list[str], output: str) -> None:
    """Merge by `ties` and write the result with rank 4."""
    for pair in pomona.inspect(*adapters).pairs:
        print(f"{pair.first} and {pair.second}: cosine {pair.total.cosine}, {pair.total.shared_modules} shared modules")
    merged = pomona.merge([pomona.read_adapter(path) for path in adapters], "ties")
    done = pomona.export(merged, "peft", output, rank=4)
    if done.compression is not None:
        print(f"rank {done.compression.rank} loses {done.compression.error:.1%} of the update")
    print(done.use)


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
