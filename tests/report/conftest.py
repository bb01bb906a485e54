"""A realistic run, made without any model: a record, and the folder that a run leaves behind."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pomona.comparison import Comparison
from pomona.ratios import Answer, CandidateRecord, CurvePoint, RoundRecord
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.record import (
    AnswersRecord,
    CutRecord,
    Estimate,
    ModuleRecord,
    RunRecord,
    SourceRecord,
    SplitRecord,
    SystemDescription,
    Timing,
)

SYSTEMS = {
    "zero_shot": ("Zero shot", "the base model, as it is", 8.7, None),
    "target_lora": ("Target LoRA", "a LoRA trained on the 50 target examples alone", 25.2, 120.4),
    "concat": ("Concat", "static merge: every column of both adapters", 23.9, 0.1),
    "linear": ("Linear", "static merge: sums of the factors", 23.1, 0.1),
    "svd": ("SVD", "static merge: best approximation of rank 8", 23.8, 0.4),
    "merge_finetune": ("Merge + fine-tune", "the merge, fine-tuned on the target, no pruning", 26.8, 96.0),
    "pomona": ("Pomona", "the merge, fine-tuned and pruned at the learned ratio", 27.1, 131.5),
}
METRICS = {"rouge_l": 1.0, "rouge_1": 1.12, "rouge_2": 0.42, "bleu": 0.31, "chrf": 1.25}
ANSWERS = {  # empty, without an end, words, length ratio, repetition; the first is as an untuned model's, none else is alarming
    "zero_shot": (0.0, 0.94, 41.3, 4.62, 0.412),
    "target_lora": (0.0, 0.01, 9.1, 1.02, 0.004),
    "concat": (0.01, 0.12, 12.4, 1.39, 0.031),
    "linear": (0.0, 0.14, 12.9, 1.44, 0.037),
    "svd": (0.02, 0.11, 12.2, 1.37, 0.03),
    "merge_finetune": (0.0, 0.0, 9.0, 1.01, 0.003),
    "pomona": (0.0, 0.01, 8.8, 0.98, 0.002),
}
SIGNATURES = {
    "rouge_l": "rouge-score|v:0.1.2|type:rougeL|tok:a-z0-9|stem:no|refs:best",
    "rouge_1": "rouge-score|v:0.1.2|type:rouge1|tok:a-z0-9|stem:no|refs:best",
    "rouge_2": "rouge-score|v:0.1.2|type:rouge2|tok:a-z0-9|stem:no|refs:best",
    "bleu": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1",
    "chrf": "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.5.1",
}
DOCUMENT = (
    "Each sample of the batch is cut into windows of the given length, with an overlap that keeps words at the borders whole. "
    "Windows that are shorter than the minimum are dropped, unless nothing else is left of the sample. The result keeps the order "
    "of the samples, and a list of counts says how many windows came from each, so that scores can be put together again."
)
ARABIC = (
    "أعلنت وزارة الصحة يوم الثلاثاء عن خطة جديدة لتوسيع مراكز الرعاية الأولية في المناطق الريفية، وقالت إن العمل سيبدأ "
    "في الربيع المقبل ويستمر ثلاث سنوات. وتشمل الخطة تدريب ألفي ممرضة وتجهيز مئة عيادة متنقلة تصل إلى القرى البعيدة مرة كل "
    "أسبوع، على أن تمول الدولة نصف التكاليف."
)


def _apart(system: str, baseline: str, factor: float) -> bool:
    """Whether the interval of the two systems' difference excludes 0."""
    difference = (SYSTEMS[system][2] - SYSTEMS[baseline][2]) * factor
    return not difference - 2.1 <= 0 <= difference + 2.0


def make_record(*, rounds: int = 10, layers: int = 30) -> RunRecord:
    """A finished run: Pomona above zero shot, level with target LoRA and with the unpruned merge, and a curve that is not flat."""
    draw = random.Random(7)
    metrics = {
        system: {
            metric: Estimate(value=value * factor, low=value * factor - 3.1, high=value * factor + 3.2, n=100)
            for metric, factor in METRICS.items()
        }
        for system, (_, _, value, _) in SYSTEMS.items()
    }
    for system, (_, _, value, _) in SYSTEMS.items():
        metrics[system]["loss"] = Estimate(value=4.2 - value / 26, low=4.1 - value / 26, high=4.3 - value / 26, n=100)
    comparisons = [
        Comparison(
            system=system,
            baseline=baseline,
            metric=metric,
            difference=(SYSTEMS[system][2] - SYSTEMS[baseline][2]) * factor,
            low=(SYSTEMS[system][2] - SYSTEMS[baseline][2]) * factor - 2.1,
            high=(SYSTEMS[system][2] - SYSTEMS[baseline][2]) * factor + 2.0,
            p_value=0.0004 if _apart(system, baseline, factor) else 0.21,
            n=100,
            p_holm=0.0044 if _apart(system, baseline, factor) else 1.0,
        )
        for system, baseline in [
            *(("pomona", name) for name in SYSTEMS if name != "pomona"),
            *((name, "target_lora") for name in SYSTEMS if name not in ("pomona", "target_lora")),
        ]
        for metric, factor in METRICS.items()
    ]
    trail: list[RoundRecord] = []
    force, mean, deviation = 0.40, 0.40, 0.1167
    for index in range(rounds):
        tried = [min(0.8, max(0.1, mean + deviation * draw.gauss(0, 1))) for _ in range(3)]
        rewards = [0.012 - 0.25 * (p - 0.3) ** 2 + draw.gauss(0, 0.004) - 0.008 for p in tried]
        best = max(range(3), key=lambda i: rewards[i])
        committed = rewards[best] > 0.002
        after = force + max(-0.1, min(0.1, tried[best] - force)) if committed else force
        mean += 0.35 * (tried[best] - mean)
        deviation = max(0.04, deviation * 0.95)
        trail.append(
            RoundRecord(
                index=index,
                step=10 * (index + 1),
                loss_before=3.41 - 0.012 * index,
                candidates=[
                    CandidateRecord(prune_ratio=p, reward=r, p_value=0.5 - math.atan(r * 300) / math.pi)
                    for p, r in zip(tried, rewards, strict=True)
                ],
                prune_ratio_before=force,
                prune_ratio_after=after,
                committed=committed,
                mean=mean,
                deviation=deviation,
                mask_change=0.031 if committed else 0.0,
            )
        )
        force = after
    curve = [
        CurvePoint(
            prune_ratio=p, reward=-0.25 * (p - 0.32) ** 2, low=-0.25 * (p - 0.32) ** 2 - 0.006, high=-0.25 * (p - 0.32) ** 2 + 0.005
        )
        for p in (0.1 + 0.025 * i for i in range(29))
    ]
    return RunRecord(
        status="done",
        name="docstring-summaries",
        started="2026-11-21T22:10:04+00:00",
        recipe={
            "name": "docstring-summaries",
            "model": "SmolLM2-135M-Instruct",
            "sources": ["stdlib", "torch"],
            "merge": {"method": "concat"},
            "tune": {"epochs": 4, "learning_rate": 0.0002, "batch_size": 4},
            "prune": {"importance": "wanda", "controller": {"name": "grasp", "mode": "single_pass"}},
        },
        environment={
            "python": "3.11.7",
            "platform": "Linux x86_64",
            "threads": 2,
            "packages": {"torch": "2.15.0", "transformers": "5.23.0", "peft": None},
        },
        fingerprints={"model": "5f2c" * 16, "data": "a91b" * 16, "recipe": "77e0" * 16},
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        task="summarization",
        primary_metric="rouge_l",
        splits={
            name: SplitRecord(examples=examples, fingerprint=f"{examples:04x}" * 16)
            for name, examples in (("train", 50), ("micro_dev", 16), ("dev", 50), ("test", 100))
        },
        cut={
            "train": CutRecord(documents=6, characters=2_904, prompts=0, tokens=0),
            "micro_dev": CutRecord(documents=0, characters=0, prompts=0, tokens=0),
            "dev": CutRecord(documents=4, characters=1_377, prompts=1, tokens=18),
            "test": CutRecord(documents=11, characters=5_016, prompts=0, tokens=0),
        },
        sources=[
            SourceRecord(
                name="stdlib", origin="trained in this run", fingerprint="0a1b" * 16, rank=8, modules=2 * layers, weight=0.5
            ),
            SourceRecord(name="torch", origin="adapters/torch", fingerprint="2c3d" * 16, rank=8, modules=2 * layers, weight=0.5),
        ],
        systems={
            system: SystemDescription(
                label=label,
                description=description,
                rank=None if system == "zero_shot" else 16,
                prune_ratio=0.3187 if system == "pomona" else None,
                sparsity=0.3184 if system == "pomona" else None,
                train_seconds=seconds,
                answers=AnswersRecord(
                    **dict(
                        zip(
                            ("empty_share", "unended_share", "mean_words", "length_ratio", "repetition"),
                            ANSWERS[system],
                            strict=True,
                        )
                    ),
                    cut_prompts=0,
                ),
            )
            for system, (label, description, _, seconds) in SYSTEMS.items()
        },
        metrics=metrics,
        signatures=dict(SIGNATURES),
        comparisons=comparisons,
        prune_ratio=0.3187,
        sparsity=0.3184,
        answer=Answer(controller="grasp", prune_ratio=0.3187, low=0.21, high=0.46, flat=False, curve=tuple(curve)),
        rounds=trail,
        modules=[
            ModuleRecord(
                module=f"model.layers.{layer}.self_attn.{projection}",
                layer=layer,
                projection=projection,
                sparsity_A=0.3187,
                sparsity_B=0.3184,
                importance=0.02 * (1 + 9 * (layer / layers) ** 2) * factor,
            )
            for layer in range(layers)
            for projection, factor in (("q_proj", 1.0), ("v_proj", 2.4))
        ],
        timing=Timing(load_seconds=3.1, train_seconds=347.9, probe_seconds=61.0, evaluate_seconds=171.6, total_seconds=598.4),
        tokens={"train": 184_320, "probe": 30_122},
    )


@functools.cache
def _grid_recipe() -> str:
    recipe = read_recipe(Path(__file__).parents[2] / "src/pomona/recipes/adaptive-lora-merge.yaml", Recipe)
    return json.dumps(recipe.resolved())


def make_grid_record(
    *, granularity: str = "rank", select_by: str = "loss", reset: str = "zero", low: float = 0.2, high: float = 0.5
) -> RunRecord:
    """A run whose ratio is the best of eight whole runs, 30 %: no rounds, and a point of the curve for each run."""
    record = make_record(layers=4)
    recipe = json.loads(_grid_recipe())
    recipe["select_by"] = select_by
    recipe["pruning"] |= {"granularity": granularity, "reset": reset}
    points = [
        CurvePoint(prune_ratio=p, reward=-0.4 * (p - 0.3) ** 2, low=-0.7 * (p - 0.3) ** 2, high=-0.1 * (p - 0.3) ** 2)
        for p in recipe["controller"]["prune_ratios"]
    ]
    changes = {
        "recipe": recipe,
        "rounds": [],
        "prune_ratio": 0.3,
        "sparsity": 0.25,
        "answer": Answer(controller="grid", prune_ratio=0.3, low=low, high=high, flat=False, curve=tuple(points)),
        "modules": [one.model_copy(update={"sparsity_A": 0.25, "sparsity_B": 0.25}) for one in record.modules],
        "tokens": {"target_lora": 90_112, "merge_finetune": 90_112, "pomona": 90_112}
        | {f"pomona_{point.prune_ratio:g}": 90_112 for point in points if point.prune_ratio != 0.3},
    }
    return record.model_copy(update=changes)


def make_folder(folder: Path, record: RunRecord, *, steps: int = 104, examples: int = 100) -> Path:
    """Write the run folder that belongs to `record`."""
    draw = random.Random(3)
    folder.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, object]] = []
    trained = [("target_lora", 3.22), ("merge_finetune", 3.02), ("pomona", 3.06)]
    if record.answer is not None and record.answer.controller == "grid":
        trained = [(f"pomona_{p.prune_ratio:g}", 3.06 - p.reward) for p in record.answer.curve] + trained[:2]
    judged = record.recipe.get("select_by", "loss") != "loss"
    for system, floor in trained:
        for step in range(1, steps + 1):
            loss = floor + 0.9 * math.exp(-step / 25) + draw.gauss(0, 0.12)
            history.append({"kind": "step", "system": system, "step": step, "epoch": step // 26, "loss": loss, "prune_ratio": 0.3})
            if step % 26 == 0:
                dev = floor + 0.25 + 0.3 * math.exp(-step / 30)
                scores = {"dev_score": 40 - 5 * dev} if judged else {}
                line = {"system": system, "step": step, "epoch": step // 26, "dev_loss": dev, "best": step < 100}
                history.append({"kind": "epoch", **line, **scores})
    history += [{"kind": "round", "system": "pomona", **seen.to_line()} for seen in record.rounds]
    predictions = [
        {
            "id": f"torch/utils/data/windows.py:cut_{index}",
            "document": ARABIC if index % 3 == 1 else DOCUMENT * (1 + index % 2),
            "references": ["خطة جديدة لتوسيع الرعاية الصحية في الريف."]
            if index % 3 == 1
            else ["Cut each sample into overlapping windows."],
            "losses": dict.fromkeys(SYSTEMS, 3.1),
            "predictions": {
                system: "توسيع مراكز الرعاية الأولية." if index % 3 == 1 else f"Cut the samples into windows ({label})."
                for system, (label, *_) in SYSTEMS.items()
            },
        }
        for index in range(examples)
    ]
    (folder / "record.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
    (folder / "recipe.yaml").write_text("name: docstring-summaries\n", encoding="utf-8")
    for name, lines in (("history.jsonl", history), ("predictions.jsonl", predictions)):
        (folder / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return folder


def make_older(record: RunRecord) -> RunRecord:
    """The record as it was written before answers were described, p-values corrected and cuts and signatures recorded."""
    content = record.model_dump(mode="json")
    del content["cut"], content["signatures"]
    for system in content["systems"].values():
        del system["answers"]
    for comparison in content["comparisons"]:
        del comparison["p_holm"]
    return RunRecord.model_validate(content)


@pytest.fixture
def record() -> RunRecord:
    return make_record()


@pytest.fixture
def grid() -> Callable[..., RunRecord]:
    return make_grid_record


@pytest.fixture
def older(record: RunRecord) -> RunRecord:
    return make_older(record)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(record: RunRecord, **sizes: int) -> Path:
        return make_folder(tmp_path / "run", record, **sizes)

    return write
