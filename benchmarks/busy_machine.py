"""The cost of other work on the machine: training steps on two cores, alone and next to two programs that keep those cores busy.

Fair shares of two cores among four threads double the time; any excess is lost by threads that wait for each other. Every figure
comes from a fresh process, which imports Pomona and then torch. For comparison, without a bound, the same is measured with OpenMP's
default waiting.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

CORES = 2
BOUND = 4.0
PAIRS = 3
STEPS, STEPS_SPINNING = 20, 5
HIDDEN, LAYERS, EXAMPLES, TOKENS = 128, 4, 8, 64
BUSY = "while True: pass"
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
SPINNING = {"GOMP_SPINCOUNT": "300000"}
"""What libgomp, torch's OpenMP on Linux, does where nothing is set."""


def run() -> bool:
    """Print seconds and ratios; whether the median ratio is within the bound."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < CORES:
        print(f"programs cannot be pinned to {CORES} cores here: not measured")
        return True
    print(
        f"steps of {EXAMPLES} x {TOKENS} tokens, {LAYERS} layers {HIDDEN} wide, {CORES} threads on {CORES} cores",
        flush=True,
    )
    ratios = [_pair("as Pomona waits", {}, STEPS) for _ in range(PAIRS)]
    _pair("as OpenMP waits by default", SPINNING, STEPS_SPINNING)
    median = statistics.median(ratios)
    print(f"median ratio of {PAIRS} pairs: {median:.2f} (bound {BOUND})")
    return median <= BOUND


def _pair(label: str, settings: dict[str, str], steps: int) -> float:
    alone = _seconds_a_step(settings, steps)
    with _other_work():
        beside = _seconds_a_step(settings, steps)
    print(f"  {label}: alone {alone:.3f} s a step, with other work {beside:.3f} s, ratio {beside / alone:.2f}", flush=True)
    return beside / alone


@contextlib.contextmanager
def _other_work() -> Iterator[None]:
    programs = [subprocess.Popen([sys.executable, "-c", BUSY], preexec_fn=_stay_on_the_cores) for _ in range(CORES)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _seconds_a_step(settings: dict[str, str], steps: int) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.busy_machine", str(steps)],
        env=environment | {"OMP_NUM_THREADS": str(CORES)} | settings,
        preexec_fn=_stay_on_the_cores,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _stay_on_the_cores() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def _work(steps: int) -> None:
    """Print how long a step takes, the first left out."""
    import pomona  # noqa: F401, I001  # before torch, as everywhere

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "vocab_size": 1000,
    }
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=4))
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(1000, (EXAMPLES, TOKENS))
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print((time.perf_counter() - started) / steps)


if __name__ == "__main__":
    _work(int(sys.argv[1]))
