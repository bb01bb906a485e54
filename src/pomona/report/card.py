"""The model card of an exported adapter: `README.md` in the hub's format, with the report's sentences and scores."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from pomona.adapters import Adapter, read_adapter
from pomona.data.tasks import tasks
from pomona.errors import PomonaError
from pomona.report.answers_table import own_alarm
from pomona.report.card_facts import data_sets, front_matter, hub_id, hub_metric, licence_of, model_index, shared_licence
from pomona.report.card_use import Use
from pomona.report.input_tables import signatures_table, sources_table
from pomona.report.read import PredictionLine
from pomona.report.sentences import three_sentences
from pomona.report.tables import Table, descriptions_table, systems_table
from pomona.runs.record import RunRecord


def model_card(record: RunRecord, first: PredictionLine | None = None) -> str:
    """The card of a run's adapter as Markdown with its YAML front matter.

    `base_model` is given only if the model is on the hub: the hub cannot use a local path.

    Args:
        record: a run's record.
        first: the first test example, which the card's code answers again.
    """
    names = dict.fromkeys(hub_metric(name) for scores in record.metrics.values() for name in scores if name != "loss")
    own = record.metrics.get("pomona", {})
    task, data = _section(record, "task"), record.recipe.get("data")
    licences = {"base model": licence_of(record.model)} | {one.name: licence_of(one.origin) for one in record.sources}
    parts = [
        front_matter(
            base=hub_id(record.model),
            licence=shared_licence(licences.values()),
            language=str(task["language"]) if "language" in task else None,
            datasets=data_sets(data),
            tags=["lora", "peft", "model-merging", "pruning", "pomona"],
            metrics=list(names),
            index=model_index(record.name, data, own),
        ),
        f"# {_markdown(record.name)}",
        "\n\n".join(_markdown(sentence) for sentence in three_sentences(record)),
        "## Use",
        _use(record, task, first).markdown(),
        *_prompt_part(task),
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
    parts += ["## Data and licences", _data_lines(record, data, licences)]
    parts.append("Made with Pomona. The run's `report.html` has the details.")
    return "\n\n".join(parts) + "\n"


def adapter_card(
    adapter: Adapter,
    name: str,
    made: str,
    *,
    sources: Sequence[str] = (),
    recipe: Mapping[str, object] | None = None,
    whole: bool = False,
    use: str | None = None,
) -> str:
    """The card of an adapter without a run: one that was trained, merged or exported.

    Args:
        adapter: what was written.
        name: the heading.
        made: one sentence: how it was made.
        sources: what it was merged or exported from; each is read for its licence.
        recipe: the resolved recipe that trained it.
        whole: it is the base model with the update added.
        use: how another program than PEFT loads it, in one sentence.
    """
    task = _mapping((recipe or {}).get("task"))
    data = (recipe or {}).get("data")
    base = adapter.base_model
    licences = {"base model": licence_of(base)} | {one: licence_of(one) for one in sources}
    tags = ["pomona", *(["lora", "peft"] if not whole else []), *(["model-merging"] if len(sources) > 1 else [])]
    given = Use(
        base or "the base model",
        chat=task.get("form") == "chat",
        max_new_tokens=_whole(task.get("max_new_tokens"), 64),
        line=_one_line(task),
        whole=whole,
    )
    parts = [
        front_matter(
            base=hub_id(base),
            licence=shared_licence(licences.values()),
            language=str(task["language"]) if "language" in task else None,
            datasets=data_sets(data),
            tags=tags,
            whole=whole,
        ),
        f"# {_markdown(name)}",
        _markdown(made),
        "## Use",
        given.markdown() if use is None else _markdown(use),
        *_prompt_part(task),
    ]
    if sources:
        rows = [(_markdown(one), fingerprint_of(one), licences[one]) for one in sources]
        table = [_line(["Made from", "Fingerprint", "Licence"]), _line(["---"] * 3), *(_line(list(row)) for row in rows)]
        parts += ["## Made from", "\n".join(table)]
    origin = f"Trained on {_markdown(_origin(data))}. " if data else ""
    parts += ["## Data and licences", f"{origin}Licence of the base model: {licences['base model']}."]
    parts += [f"Fingerprint of this adapter: `{adapter.fingerprint()[:12]}`.", "Made with Pomona."]
    return "\n\n".join(parts) + "\n"


def fingerprint_of(path: str) -> str:
    """The beginning of an adapter's fingerprint; `not known` where it cannot be read again."""
    try:
        return f"`{read_adapter(path).fingerprint()[:12]}`"
    except PomonaError:
        return "not known"


def _use(record: RunRecord, task: Mapping[str, object], first: PredictionLine | None) -> Use:
    """The code that answers the first test example, and its answer if the code must give the same."""
    evaluation = _section(record, "evaluation")
    cut = record.cut.get("test")
    greedy = all(value in (None, 1, 1.0, False, 0) for value in _mapping(evaluation.get("decoding")).values())
    several_turns = record.task == "Chat"
    same = first is not None and greedy and not several_turns and (cut is None or cut.prompts == 0)
    chat, stop = task.get("form") == "chat", task.get("stop")
    return Use(
        record.model,
        prompt=None if first is None else first.prompt,
        chat=chat,
        system=str(task["system"]) if chat and isinstance(task.get("system"), str) else None,
        arguments=_mapping(task.get("template_arguments")),
        max_new_tokens=_whole(task.get("max_new_tokens"), 64),
        line=_one_line(task),
        stop=[str(one) for one in stop] if isinstance(stop, list | tuple) else (),
        answer=first.predictions.get("pomona") if same and first is not None else None,
    )


def _one_line(task: Mapping[str, object]) -> bool:
    name = task.get("name")
    return isinstance(name, str) and name in tasks and tasks[name].stops_at_line_end


def _prompt_part(task: Mapping[str, object]) -> list[str]:
    """The template of the prompts, with the task's placeholders in braces."""
    name = task.get("name")
    if not isinstance(name, str) or name not in tasks:
        return []
    parameters = {key: tuple(value) if isinstance(value, list) else value for key, value in task.items() if key != "name"}
    try:
        made = tasks.create(name, parameters)
    except PomonaError:  # a task of an older record
        return []
    template = getattr(made, "prompt_template", None)
    return [] if template is None else ["The prompt's template:", "\n".join(f"    {line}" for line in str(template).splitlines())]


def _data_lines(record: RunRecord, data: object, licences: Mapping[str, str]) -> str:
    sizes = ", ".join(f"{part.examples} {name}" for name, part in record.splits.items())
    found = [f"Target data: {_markdown(_origin(data))}" + (f" ({sizes})" if sizes else "")]
    return "\n".join([f"- {line}" for line in found] + [f"- Licence of {_markdown(one)}: {name}" for one, name in licences.items()])


def _origin(data: object) -> str:
    given = _mapping(data)
    train = given.get("train")
    if train is None:
        return f"docstrings of {given.get('docstrings')}"
    return " and ".join(map(str, train)) if isinstance(train, list | tuple) else str(train)


def _section(record: RunRecord, name: str) -> Mapping[str, object]:
    return _mapping(record.recipe.get(name))


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) else default


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
