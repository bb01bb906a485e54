"""The model card of an exported adapter: `README.md` in the hub's format, with the report's sentences and scores."""

from __future__ import annotations

import html
import re

from pomona.report.answers_table import own_alarm
from pomona.report.input_tables import signatures_table, sources_table
from pomona.report.sentences import three_sentences
from pomona.report.tables import Table, descriptions_table, systems_table
from pomona.runs.record import RunRecord

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_METRICS = {
    "rouge_1": "rouge",
    "rouge_2": "rouge",
    "rouge_l": "rouge",
    "rouge_lsum": "rouge",
    "token_f1": "f1",
    "bert_score": "bertscore",
}


def model_card(record: RunRecord) -> str:
    """The card as Markdown with its YAML front matter.

    `base_model` is given only if the model is a hub id: the hub cannot use a local path.

    Args:
        record: a run's record.
    """
    import yaml

    metrics = dict.fromkeys(_HUB_METRICS.get(name, name) for scores in record.metrics.values() for name in scores if name != "loss")
    front: dict[str, object] = {
        **({"base_model": record.model} if _HUB_ID.fullmatch(record.model) else {}),
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "model-merging", "pruning", "pomona"],
        **({"metrics": list(metrics)} if metrics else {}),
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {_markdown(record.name)}",
        "\n\n".join(_markdown(sentence) for sentence in three_sentences(record)),
    ]
    if record.systems:
        parts += ["## Scores", _markdown_table(systems_table(record)), systems_table(record).note]
        if (alarm := own_alarm(record)) is not None:
            parts.append(_markdown(alarm))
        made_of = descriptions_table(record)
        parts += ["The systems:", _markdown_table(made_of), *([_markdown(made_of.note)] if made_of.note else [])]
    if record.signatures:
        parts += ["Signatures of the metrics:", "\n".join(_signature_lines(record))]
    if record.sources:
        parts += ["## Merged from", _markdown_table(sources_table(record))]
    parts += ["## Use", _USE.format(model=record.model.replace("\\", "\\\\").replace('"', '\\"'))]
    parts.append("Made with Pomona. The run's `report.html` has the details.")
    return "\n\n".join(parts) + "\n"


_USE = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{model}"), "path/to/this/folder")
```"""


def _signature_lines(record: RunRecord) -> list[str]:
    return [f"- {_markdown(': '.join(cell.text for cell in row))}" for row in signatures_table(record).rows]


def _markdown_table(table: Table) -> str:
    lines = [
        _line([column.heading for column in table.columns]),
        _line(["---:" if column.numeric else "---" for column in table.columns]),
    ]
    for index, row in enumerate(table.rows):
        cells = [_markdown(cell.text) + (f" ({_markdown(cell.note)})" if cell.note else "") for cell in row]
        if index == table.strong:
            cells[0] = f"**{cells[0]}**"
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    """A user's text on one line, with Markdown and HTML markup escaped."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(text.split(" ")).replace("\n", " "), quote=False))
