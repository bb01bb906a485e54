"""What `adapt` and `demo` share: run a recipe with a progress display, write the page, say what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pomona.cli.say import say

if TYPE_CHECKING:
    from pomona.runs.recipe import Recipe


def run_and_report(
    recipe: Recipe, output: Path, *, named: bool, resume: bool, as_json: bool, push_to_hub: str | None = None
) -> None:
    """Run, write the page and the adapter's model card, print sentences, table and paths (or the record as JSON).

    Args:
        recipe: what to run.
        output: the run folder.
        named: whether the command line names it.
        resume: go on with the run that stands there.
        as_json: print the record.
        push_to_hub: `OWNER/NAME` of the hub.
    """
    from pomona.api.adapt import adapt
    from pomona.cli.interrupted import resumable
    from pomona.engines import NATIVE
    from pomona.report import three_sentences, what_it_is_made_of
    from pomona.runs.store import RECIPE
    from pomona.tuning.progress import Display

    folder = output
    with resumable(folder, RECIPE, named=named), Display() as display:
        record = adapt(recipe, folder, resume=resume, progress=display, push_to_hub=push_to_hub)
    if not NATIVE.is_main:
        return
    if as_json:
        say(record.model_dump_json(indent=2), lines=True)
        return
    say("")
    for sentence in three_sentences(record):
        say(sentence)
    say("")
    width = max(22, *(len(description.label) + 2 for description in record.systems.values()))
    for system, description in record.systems.items():
        shown = [
            f"{name} {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
            for name in (record.primary_metric, "loss")
            if (found := record.metrics.get(system, {}).get(name))
        ]
        say(f"  {description.label:<{width}}" + "   ".join(shown))
    made_of = [(one.label, text) for one in record.systems.values() if (text := what_it_is_made_of(one))]
    say("".join(f"\n  {label:<{width}}{text}" for label, text in made_of) + "\n", lines=True)
    for what, path in (("adapter", folder / "adapter"), ("record", folder / "record.json"), ("report", folder / "report.html")):
        say(f"{what:<8} {path}")
