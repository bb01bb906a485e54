"""The reader's questions: the page answers each in words, in the element with the question's id."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pomona.report import questions
from pomona.report.page import write_report
from pomona.report.questions import QUESTIONS
from pomona.report.wording import task_label
from pomona.runs.record import RunRecord

Save = Callable[..., Path]
VOID = {"meta", "br", "hr"}

ANSWERS = {
    "what-was-merged": ("merged 2 adapters (stdlib and torch)", "SmolLM2-135M-Instruct", "50 training examples"),
    "from-where": ("stdlib (from trained in this run)", "torch (from adapters/torch)"),
    "on-what": ("50 examples trained the adapter", "100 examples were used for the scores alone"),
    "how-good": ("ROUGE-L is 27.1 of 100 points", "18.4 points better than Zero shot", "very unlikely to be chance"),
    "against-what": ("Zero shot (the base model, as it is)", "Target LoRA (a LoRA trained on the 50 target examples alone)"),
    "how-sure": ("95% interval 24.0 to 30.3", "corrected p = 0.004", "not other training seeds"),
    "did-pruning-help": ("pruning did not significantly change ROUGE-L", "use the unpruned merge"),
    "what-it-cost": ("9\xa0min 58\xa0s on 2 CPU threads", "5\xa0min 48\xa0s of training", "214.4 k tokens"),
    "what-next": ("sources are not shown to help beyond Target LoRA", "other seeds with pomona experiment"),
    "how-to-load": ("pomona generate", "PeftModel.from_pretrained", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "how-to-repeat": ("pomona adapt FOLDER/recipe.yaml", "same data"),
    "what-may-be-wrong": ("The run gave no warnings.", "one run with one seed", "11 documents"),
}


class _ById(HTMLParser):
    """The text inside each element that has an id."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, str | None]] = []
        self.found: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for _, name in self.open:
            if name:
                self.found[name] = self.found.get(name, "") + data


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from tests.report.conftest import make_folder, make_record

    folder = make_folder(tmp_path_factory.mktemp("questions") / "run", make_record(layers=2), steps=4, examples=2)
    return _ById(write_report(folder).read_text(encoding="utf-8")).found


def test_the_checklist_has_every_question() -> None:
    assert list(ANSWERS) == list(QUESTIONS)
    assert len(QUESTIONS) == 12


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_the_page_answers_in_words(answered: dict[str, str], name: str) -> None:
    for words in ANSWERS[name]:
        assert words in answered[name], QUESTIONS[name]


def test_a_run_that_has_nothing_answers_too(record: RunRecord, save: Save) -> None:
    empty = {"metrics": {}, "comparisons": [], "systems": {}, "answer": None, "prune_ratio": None, "sparsity": None}
    empty |= {"rounds": [], "modules": [], "sources": [], "splits": {}, "tokens": {}, "status": "failed"}
    bare = record.model_copy(update=empty)
    found = _ById(write_report(save(bare, steps=1, examples=1)).read_text(encoding="utf-8")).found
    short = {name for name in QUESTIONS if len(found.get(name, "").strip()) < 10}
    assert short == {"from-where", "against-what"}  # there are no sources and no systems to speak of


def test_which_source_counts_most_where(record: RunRecord) -> None:
    assert "does not show which source helped where" in questions.which_source_helped(record)
    modules = [
        one.model_copy(update={"merge_weights": [1.0, 0.5] if (one.layer or 0) < 10 else [0.2, 0.4]})
        for one in record.modules
        if one.layer != 3
    ]
    assert questions.which_source_helped(record.model_copy(update={"modules": modules})) == (
        "By the trained merge weights, stdlib counts most in 9 layers (0 to 2, 4 to 9) and torch counts most in 20 layers (10 to "
        "29)."
    )
    even = [one.model_copy(update={"kept_by_source": [0.5, 0.5]}) for one in record.modules]
    assert questions.which_source_helped(record.model_copy(update={"modules": even})) == (
        "By the share that pruning kept, all sources count alike in every layer."
    )


@pytest.mark.parametrize(
    ("interval", "p_holm", "says"),
    [
        ((2.0, 1.0, 3.0), 0.01, "Use the adapter."),
        ((2.0, 1.0, 3.0), 0.2, "The sources are not shown to help beyond Target LoRA."),
        ((-2.0, -3.0, -1.0), 0.01, "Do not use this adapter: Target LoRA"),
    ],
)
def test_what_to_do_follows_the_test(record: RunRecord, interval: tuple[float, float, float], p_holm: float, says: str) -> None:
    difference, low, high = interval
    changed = [
        one.__class__(**{**vars(one), "difference": difference, "low": low, "high": high, "p_holm": p_holm})
        if (one.system, one.baseline, one.metric) == ("pomona", "target_lora", "rouge_l")
        else one
        for one in record.comparisons
    ]
    assert questions.what_next(record.model_copy(update={"comparisons": changed})).startswith(says)


@pytest.mark.parametrize(
    ("name", "words"),
    [("ExtractiveQa", "extractive QA"), ("Summarization", "summarization"), ("multiple_choice", "multiple choice"), ("NLI", "NLI")],
)
def test_class_names_become_words(name: str, words: str) -> None:
    assert task_label(name) == words
