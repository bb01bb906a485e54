"""What the front matter of a model card says in the hub's format: base, licence, language, data, scores with intervals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from pomona.runs.record import Estimate

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_METRICS = {
    "rouge_1": "rouge",
    "rouge_2": "rouge",
    "rouge_l": "rouge",
    "rouge_lsum": "rouge",
    "token_f1": "f1",
    "bert_score": "bertscore",
}
_EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"
_KNOWN = {_EMBEDDED: "apache-2.0"}
UNKNOWN = "not stated"


def hub_id(name: str | None) -> str | None:
    """The name of a model if the hub can use it: it is no folder here."""
    return name if name is not None and _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def hub_metric(name: str) -> str:
    """What the hub calls a metric."""
    return _HUB_METRICS.get(name, name)


def licence_of(name: str | None) -> str:
    """The licence that a model's or an adapter's own card names: of a folder, or of a repository in the hub's cache."""
    if name is None:
        return UNKNOWN
    if name in _KNOWN or name.startswith("embedded:"):
        return _KNOWN.get(name, "apache-2.0")
    path: object = Path(name) / "README.md"
    repository = name.removeprefix("hub:").partition("@")[0]
    if not Path(name).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(repository, "README.md")
    try:
        text = Path(str(path)).read_text(encoding="utf-8")
        front = yaml.safe_load(text.split("---\n", 2)[1]) if text.startswith("---\n") else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return UNKNOWN
    found = front.get("license") if isinstance(front, dict) else None
    return found if isinstance(found, str) else UNKNOWN


def shared_licence(licences: Iterable[str]) -> str | None:
    """The licence of the result: the one that all parts have; None where one is not stated or they differ."""
    found = set(licences)
    return found.pop() if len(found) == 1 and UNKNOWN not in found else None


def data_sets(data: object) -> list[str]:
    """The data sets of the hub in the section `data` of a recipe."""
    if not isinstance(data, Mapping):
        return []
    named: list[object] = []
    for split in ("train", "dev", "test"):
        given = data.get(split)
        named += given if isinstance(given, list | tuple) else [given]
    ids = (re.match(r"hub:([\w.-]+/[\w.-]+)", one) for one in named if isinstance(one, str))
    return list(dict.fromkeys(found[1] for found in ids if found))


def model_index(name: str, data: object, scores: Mapping[str, Estimate]) -> list[dict[str, object]]:
    """The hub's `model-index`: each score with its 95 % interval and number of examples."""
    sets = data_sets(data)
    train = data.get("train") or data.get("docstrings") if isinstance(data, Mapping) else None
    label = sets[0] if sets else Path(str(train)).name if isinstance(train, str) else "own data"
    metrics = [
        {
            "type": hub_metric(metric),
            "name": f"{metric} (95 % interval {one.low:.2f} to {one.high:.2f}, {one.n} examples)",
            "value": round(one.value, 4),
            "args": {"low": round(one.low, 4), "high": round(one.high, 4), "n": one.n},
        }
        for metric, one in scores.items()
        if metric != "loss"
    ]
    if not metrics:
        return []
    result = {
        "task": {"type": "text-generation"},
        "dataset": {"type": sets[0] if sets else "local", "name": label},
        "metrics": metrics,
    }
    return [{"name": name, "results": [result]}]


def front_matter(
    *,
    base: str | None,
    licence: str | None,
    language: str | None = None,
    datasets: Sequence[str] = (),
    tags: Sequence[str],
    metrics: Sequence[str] = (),
    index: Sequence[Mapping[str, object]] = (),
    whole: bool = False,
) -> str:
    """The YAML front matter; what is not known is left out.

    Args:
        base: the base model, if it is on the hub.
        licence: the result's, if it follows from those of its parts.
        language: tag of the answers.
        datasets: of the hub.
        tags: of the hub.
        metrics: names of the hub.
        index: as `model_index` makes it.
        whole: it is a whole model and no adapter.
    """
    front: dict[str, object] = {
        **({"base_model": base} if base else {}),
        **({"base_model_relation": "finetune" if whole else "adapter"} if base else {}),
        **({"license": licence} if licence else {}),
        **({"language": [language]} if language else {}),
        **({"datasets": list(datasets)} if datasets else {}),
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "text-generation",
        "tags": list(tags),
        **({"metrics": list(metrics)} if metrics else {}),
        **({"model-index": list(index)} if index else {}),
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"
