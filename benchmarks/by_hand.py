"""What Pomona computes by its own code although a library does it, against this library: the figures of decision 60.

`python -m benchmarks by_hand` prints them; a minute on one core. A library that developers do not have is not measured.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pomona.errors import InputError

T = TypeVar("T")
WORDS = [f"{first}{last}" for first in ("am", "bir", "ce", "du", "em") for last in ("ber", "ch", "dar", "ne")]


def run() -> bool:
    """Print every comparison; False where a result of our own is not the library's."""
    right = True
    for compare in (_rouge, _bleu, _chrf, _student, _near, _csv, _json, _header):
        told, ok = compare()
        print(f"- {told}", flush=True)
        right &= ok
    return right


def _rouge() -> tuple[str, bool]:
    from rouge_score.rouge_scorer import RougeScorer

    from pomona.metrics import metrics

    ours, theirs = metrics.create("rouge_l"), RougeScorer(["rougeL"])
    one, other = _text(3000, 0), _text(3000, 1)
    mine, mine_s = _timed(lambda: float(ours.statistics(one, [other])[0]))
    peer, peer_s = _timed(lambda: theirs.score(other, one)["rougeL"].fmeasure)
    scale = mine / peer if peer else 0.0
    same = abs(scale - round(scale)) < 1e-12  # shares, or per cent
    return (
        f"ROUGE-L of two texts of 3,000 words: {_ms(mine_s)}, rouge-score {version('rouge-score')} {_ms(peer_s)}; equal: {same}",
        same,
    )


def _bleu() -> tuple[str, bool]:
    return _corpus("bleu", "BLEU")


def _chrf() -> tuple[str, bool]:
    return _corpus("chrf", "chrF")


def _corpus(name: str, shown: str) -> tuple[str, bool]:
    """100 examples, and the scores of resamples of them: ours from the examples' statistics, sacrebleu's from the texts."""
    import sacrebleu

    from pomona.metrics import metrics
    from pomona.metrics.bootstrap import interval

    metric = metrics.create(name)
    predictions, references = [_text(20, i) for i in range(100)], [_text(20, i // 2 + 7) for i in range(100)]
    score: Any = getattr(sacrebleu, f"corpus_{name}")
    table = metric.table(predictions, [[one] for one in references])
    found, ours_s = _timed(lambda: interval(table, metric, 2000, generator=torch.Generator().manual_seed(0)))
    whole, once_s = _timed(lambda: score(predictions, [references]).score)
    same = abs(found.value - whole) < 1e-9
    told = f"{shown} of 100 answers: 2,000 draws for an interval {_ms(ours_s)}; one scoring by sacrebleu {version('sacrebleu')}"
    return f"{told} {_ms(once_s)}, so 2,000 take {2000 * once_s:.0f} s; equal: {same}", same


def _student() -> tuple[str, bool]:
    from scipy.stats import t

    from pomona.metrics.student import student_quantile

    grid = [(p, d) for p in (0.6, 0.9, 0.975, 0.995, 0.9999) for d in (1.0, 2.0, 4.5, 9.0, 30.0, 299.0, 5000.0)]
    worst = max(abs(student_quantile(p, d) / float(t.ppf(p, d)) - 1) for p, d in grid)
    size = sum(file.size or 0 for file in distribution("scipy").files or ()) / 1e6
    seconds = min(_import_seconds("scipy.stats") for _ in range(3))
    told = f"quantiles of Student's t: at most {worst:.0e} from those of scipy {version('scipy')}"
    return f"{told}, which has {size:.0f} MB and takes {seconds:.1f} s to import", worst < 1e-9


def _near() -> tuple[str, bool]:
    from pomona.data.near import near_duplicates

    texts = [_text(60, i) for i in range(1000)]
    texts += [f"{text} and one more" for text in texts[:20]]
    found, seconds = _timed(lambda: near_duplicates(texts))
    pairs = {(pair.first, pair.second) for pair in found}
    right = {(i, 1000 + i) for i in range(20)} <= pairs
    return f"near-duplicates among 1,020 texts of 60 words: {_ms(seconds)}; all 20 pairs found: {right}", right


def _csv() -> tuple[str, bool]:
    """A file with a column of labels in which one is NA, a number with a leading zero, and a header that is there twice."""
    import pandas

    from pomona.data.formats import read_rows

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_text("document,summary\nNA,007\n", encoding="utf-8")
        ours = dict(read_rows(path)[0].fields)
        theirs = pandas.read_csv(path).to_dict("records")[0]
        path.write_text("a,a\n1,2\n", encoding="utf-8")
        twice = list(pandas.read_csv(path).columns)
        try:
            read_rows(path)
            refused = False
        except InputError:
            refused = True
    plain = next(csv.DictReader(io.StringIO("document,summary\nNA,007\n")))
    told = f"a CSV row `NA,007` is {ours}, in pandas {version('pandas')} {theirs}"
    return f"{told}; a header `a,a` is refused: {refused}, in pandas {twice}", refused and ours == plain


def _json() -> tuple[str, bool]:
    from pomona.data.formats.strict_json import strict_json

    text = '{"document": "one", "document": "two"}'
    try:
        strict_json(text)
        refused = False
    except ValueError:
        refused = True
    return f"a JSON object with one key twice is refused: {refused}; Python's json keeps {json.loads(text)}", refused


def _header() -> tuple[str, bool]:
    """A file that names one tensor twice: which one a program reads is a matter of chance."""
    from safetensors import safe_open

    from pomona.adapters.tensors import TensorFile

    entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f"{{{entry},{entry}}}".encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + np.zeros(1, dtype=np.float32).tobytes())
        try:
            with safe_open(path, "pt") as file:
                theirs = f"reads {list(file.keys())}"
        except Exception as error:  # its errors are of no common class
            theirs = f"refuses it ({type(error).__name__})"
        try:
            TensorFile(path)
            refused = False
        except InputError:
            refused = True
    return (
        f"a safetensors file that names a tensor twice is refused: {refused}; safetensors {version('safetensors')} {theirs}",
        refused,
    )


def _text(words: int, seed: int) -> str:
    generator = np.random.default_rng(seed)
    return " ".join(f"{WORDS[generator.integers(20)]}{generator.integers(50)}" for _ in range(words))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _import_seconds(module: str) -> float:
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"
