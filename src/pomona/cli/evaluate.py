"""`pomona evaluate`: scores with intervals, of adapters or of given answers, on a recipe's test split or on any data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pomona.cli.say import say

if TYPE_CHECKING:
    from pomona.runs.record import EvaluationRecord


def evaluate(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe: its model, task and test split are used.")] = None,
    adapters: Annotated[
        list[Path] | None, typer.Option("--adapter", "-a", help="A PEFT folder or hub:owner/name; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="In place of a recipe: .jsonl, .json, .csv, .tsv, .parquet, or hub:owner/name:config@split.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", metavar="FIELD=COLUMN", help="With --data: --column document=abstract.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="With --data: the task; `pomona list` names them. Default: summarization.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With --data: the task's: --set max_new_tokens=32.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="With --data: the language of the answers. Default: the task's.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="With --data: how many, drawn by content. Default: all.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="With --data: `embedded`, a folder, or a hub id. Default: the base that the adapters name; embedded without any."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="With --data: auto, cpu, cuda, cuda:1 ... Default: auto.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="With --data: auto, float32, bfloat16 or float16, of the model. Default: auto.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Score these answers and run no model: rows of id and prediction, or a run's predictions.jsonl."),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help='May be repeated; with parameters: "{name: bert_score, model: DIR}".')
    ] = None,
    decoding: Annotated[
        list[str] | None, typer.Option("--decode", metavar="KEY=VALUE", help="--decode num_beams=4, --decode temperature=0.7 ...")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=2, max=2**24, help="Longest prompt and answer together, in tokens.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2**16, help="Examples a batch. Default: the recipe's, or 32.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the answers there, as JSON lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score the bare model and each adapter, with 95 % bootstrap intervals, and compare each pair of them."""
    from pomona.cli.values import decoding_of, metrics_of, refuse_given
    from pomona.errors import InputError

    # Whatever can be wrong is found before the model is loaded.
    of_model = {"--model": model, "--device": device, "--dtype": dtype}
    of_data = {"--column": columns, "--task": task, "--set": parameters, "--language": language, "--examples": examples}
    of_answers = {"--adapter": adapters, "--decode": decoding, "--max-tokens": max_tokens, "--batch-size": batch_size}
    if (recipe is None) == (data is None):
        raise InputError(
            "give either a recipe or --data", fix="For example: pomona evaluate --data test.jsonl --adapter runs/demo/adapter"
        )
    if recipe is not None:
        refuse_given(of_data | of_model, "the recipe says this itself")
    if predictions is not None:
        refuse_given(of_answers | of_model, "--predictions runs no model")

    from pomona.cli.selection import from_data, from_recipe
    from pomona.engines import NATIVE
    from pomona.evaluation.answers import check_room
    from pomona.runs.evaluate import evaluate as run
    from pomona.runs.evaluate import read_adapters, ready_metrics, score_predictions
    from pomona.runs.predictions import check_output, read_predictions, write_predictions

    if output is not None:
        check_output(output)
    given = {"metrics": metrics_of(metrics), "batch_size": batch_size, "max_tokens": max_tokens, "decoding": decoding_of(decoding)}
    if recipe is not None:
        chosen = from_recipe(recipe)
    else:
        assert data is not None
        chosen = from_data(data, columns or (), task or "summarization", language, parameters or (), examples)
    settings = chosen.settings | {key: value for key, value in given.items() if value is not None}
    ready_metrics(settings.get("metrics") or chosen.task.metrics, chosen.task.language)
    if predictions is not None:
        answers = read_predictions(predictions, chosen.examples)
        wanted = {key: value for key, value in settings.items() if key in {"metrics", "draws", "seed"}}
        found = NATIVE.on_main(lambda: score_predictions(answers, chosen.examples, chosen.task, **wanted))
        for warning in found.warnings:
            say(f"warning: {warning}", err=True)
    else:
        from pomona.backbone.load import load_backbone
        from pomona.runs.adapters_base import model_for
        from pomona.runs.recipe_model import Loading
        from pomona.tuning.progress import Display

        opened = list(read_adapters(adapters or []).values())
        if "max_tokens" in settings:
            check_room(chosen.task, settings["max_tokens"])
        with Display() as display:
            given = chosen.model or Loading(model_for(opened, model), device or "auto", dtype or "auto")
            backbone = load_backbone(*given)
            found = run(backbone, adapters or [], chosen.examples, chosen.task, **settings, progress=display)
            for warning in found.warnings:
                display.warn(warning)
    say(found.model_dump_json(indent=2, exclude={"predictions"}) if as_json else _table(found), lines=True)
    if output is not None and NATIVE.is_main:
        write_predictions(output, chosen.examples, found.predictions)


def _table(found: EvaluationRecord) -> str:
    """Scores, what the answers look like, and differences, a line each."""
    lines = []
    for system, scores in found.metrics.items():
        lines.append(system)
        lines += [f"  {name:<14}{one.value:8.3f}  [{one.low:.3f}, {one.high:.3f}]  n = {one.n}" for name, one in scores.items()]
        looks = found.answers[system]
        figures = (
            ("empty", looks.empty_share, "{:.1%}"),
            ("without an end", looks.unended_share, "{:.1%}"),
            ("words", looks.mean_words, "{:.1f}"),
            ("times the reference's length", looks.length_ratio, "{:.2f}"),
            ("repeated", looks.repetition, "{:.1%}"),
        )
        known = [f"{shape.format(value)} {name}" for name, value, shape in figures if value is not None]
        lines += [f"  answers       {', '.join(known)}"] if known else []
        if found.unscored[system]:
            lines.append(f"  unscored      {found.unscored[system]}")
        if looks.cut_prompts:
            lines.append(f"  prompts cut   {looks.cut_prompts}")
    for one in found.comparisons:
        lines.append(
            f"{one.system} - {one.baseline}  {one.metric:<14}{one.difference:+8.3f}  [{one.low:+.3f}, {one.high:+.3f}]  "
            f"p = {one.p_value:.4f}, {one.p_holm:.4f} after Holm"
        )
    if found.cut_documents:
        lines.append(f"documents cut at the task's max_document_characters: {found.cut_documents} of {found.examples}")
    return "\n".join(lines)
