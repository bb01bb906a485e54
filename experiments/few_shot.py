"""What fifty examples are worth without any source adapter: zero shot against a target LoRA, on eight data sets.

A set's scores are kept under `runs/few-shot/`, so that a run that was interrupted goes on with the next set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gemma import gemma_folder

from experiments.few_shot_page import page
from pomona.adapters import write_adapter
from pomona.backbone.attach import attached, new_adapter
from pomona.backbone.batches import encode
from pomona.backbone.embedded import embedded_model
from pomona.backbone.load import load_backbone
from pomona.data import SplitSizes, examples, make_splits, read_rows
from pomona.data.tasks import DataToText, ExtractiveQA, Summarization, Task, TitleGeneration
from pomona.runs.evaluate import evaluate
from pomona.runs.record import EvaluationRecord
from pomona.seeding import derive_seed, stream
from pomona.tuning.fit import fit
from pomona.tuning.progress import Display
from pomona.tuning.settings import FitData, Tuning

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
RUNS = REPOSITORY / "runs" / "few-shot"
PAGE = REPOSITORY / "docs" / "results" / "few-shot.md"

SIZES = SplitSizes(train=50, micro_dev=16, dev=50, test=100)
TARGETS, RANK, ALPHA = ("q_proj", "v_proj"), 8, 32.0
TUNING = Tuning(epochs=4, learning_rate=5e-4, batch_size=5, max_tokens=512)
DRAWS = 10_000

SMOLLM2 = ("SmolLM2-135M-Instruct", embedded_model)
GEMMA = ("Gemma 3 270M", gemma_folder)


@dataclass(frozen=True, eq=False)
class Setting:
    """A data set, its task, and the model that it is tried with."""

    name: str
    model: tuple[str, Callable[[], Path]]
    task: Task
    columns: dict[str, str] = field(default_factory=dict)
    near_duplicates: bool = True


_TITLES = {"title": "summary"}
SETTINGS = (
    Setting("scitldr_title/en", SMOLLM2, TitleGeneration(max_new_tokens=32, max_document_characters=600, language="en"), _TITLES),
    Setting("scitldr/en", SMOLLM2, Summarization(max_new_tokens=48, max_document_characters=600, language="en")),
    # Restaurants that differ in one field are different inputs, though nearly the same text.
    Setting("e2e_nlg/en", SMOLLM2, DataToText(max_new_tokens=64, language="en"), near_duplicates=False),
    Setting("csl_title/zh", GEMMA, TitleGeneration(max_new_tokens=32, max_document_characters=300, language="zh"), _TITLES),
    Setting("xquad/ar", GEMMA, ExtractiveQA(max_new_tokens=24, max_document_characters=600, language="ar")),
    Setting("xquad/zh", GEMMA, ExtractiveQA(max_new_tokens=24, max_document_characters=300, language="zh")),
    Setting("jsquad/ja", GEMMA, ExtractiveQA(max_new_tokens=24, max_document_characters=300, language="ja")),
    Setting("tydiqa_goldp/ar", GEMMA, ExtractiveQA(max_new_tokens=32, max_document_characters=600, language="ar")),
)


def run(chosen: Sequence[str] = (), seeds: Sequence[int] = (0,), write: bool = True) -> None:
    """Run the settings (all, or those named) with each seed, and write the page of all that are there.

    Args:
        chosen: names in `SETTINGS`.
        seeds: each draws its own training examples, initial factors and order; the test examples are those of seed 0.
        write: whether to write the page at the end.
    """
    for setting in SETTINGS:
        if not chosen or setting.name in chosen:
            for seed in seeds:
                _record(setting, seed)
    if write:
        found = {
            setting: {seed: EvaluationRecord.model_validate_json(path.read_text(encoding="utf-8")) for seed, path in there.items()}
            for setting in SETTINGS
            if (there := {seed: path for seed in range(100) if (path := _path(setting, seed)).exists()})
        }
        PAGE.write_text(page(found, TUNING, SIZES, (RANK, ALPHA, TARGETS), DRAWS), encoding="utf-8")


def _path(setting: Setting, seed: int) -> Path:
    return RUNS / f"{setting.name.replace('/', '-')}-{seed}.json"


def _record(setting: Setting, seed: int) -> None:
    """Train the LoRA, evaluate it beside the bare model, keep the scores."""
    path = _path(setting, seed)
    if path.exists():
        return
    started = time.perf_counter()
    files = {part: DATA / setting.name / f"{part}.jsonl" for part in ("train", "dev", "test")}
    pools = [examples(read_rows(file, setting.columns), setting.task, file) for file in files.values()]
    splits = make_splits(*pools, sizes=SIZES, seed=seed, near_duplicates=setting.near_duplicates)
    test = make_splits(*pools, sizes=SIZES, seed=0, near_duplicates=setting.near_duplicates).test
    backbone = load_backbone(str(setting.model[1]()))
    train, _ = encode(splits.train, backbone.tokenizer, TUNING.max_tokens)
    dev, _ = encode(splits.dev, backbone.tokenizer, TUNING.max_tokens)
    adapter = RUNS / f"{path.stem}-adapter"
    with Display() as display:
        start = new_adapter(backbone, TARGETS, RANK, ALPHA, stream(seed, "lora"))
        with attached(backbone, [start], dropout=TUNING.dropout) as attachment:
            fitted = fit(
                attachment,
                FitData(train, dev=dev),
                TUNING,
                seed=derive_seed(seed, "fit"),
                system=setting.name,
                progress=display,
            )
        write_adapter(fitted.adapter, adapter, force=True)
        found = evaluate(
            backbone,
            [adapter],
            test,
            setting.task,
            batch_size=20,
            max_tokens=TUNING.max_tokens,
            draws=DRAWS,
            progress=display,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".writing")
    scratch.write_text(found.model_dump_json(), encoding="utf-8")
    scratch.replace(path)
    print(f"{setting.name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
