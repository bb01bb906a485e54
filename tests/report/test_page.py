from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pomona.errors import InputError
from pomona.ratios import GroupRatio
from pomona.report.page import write_report
from pomona.runs.record import RunRecord

Save = Callable[..., Path]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser without scripts would see: tables, text, attributes, script elements; it checks that elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        names = [name for name, _ in self.open]
        if names and names[-1] in ("script", "style"):
            if names[-1] == "script":
                self.scripts.append((self.open[-1][1], data))
            return
        self.words.append(data)
        if "td" in names or "th" in names:
            self.tables[-1][-1][-1] += data + ("|" if names[-1] != "small" else "")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def table(self, heading: str) -> list[list[str]]:
        return next(table for table in self.tables if table[0][0].strip("|") == heading)


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def answers_of(page: Page) -> list[list[str]]:
    return next(table for table in page.tables if "Empty|" in table[0])


def test_systems_table(record: RunRecord, save: Save):
    head, *rows = page_of(save(record)).table("System")
    assert [cell.strip("|") for cell in head] == [
        *("System", "ROUGE-L", "against Target LoRA", "p (Holm)", "ROUGE-1", "ROUGE-2", "BLEU", "chrF", "test loss ↓"),
        *("Rank", "Prune ratio", "Sparsity", "Training"),
    ]
    assert [row[0].strip("|") for row in rows] == [described.label for described in record.systems.values()]
    assert rows[6][1] == "27.1|24.0 to 30.3"
    assert rows[6][2:4] == ["+1.9|−0.2 to 3.9", "1.000|raw 0.210"]
    assert [cell.strip("|") for cell in rows[6][9:12]] == ["16", "32%", "31.8%"]
    assert [cell.strip("|") for cell in rows[0][9:]] == ["–"] * 4
    assert all(len(row) == len(head) for row in rows)


def test_pomona_stands_out_and_only_it(record: RunRecord, save: Save):
    rows = [attributes for tag, attributes in page_of(save(record)).elements if tag == "tr" and attributes.get("class") == "strong"]
    assert len(rows) == 2  # of the table of results, and of what the answers look like


def test_unscored_and_missing_metrics_are_shown_as_such(record: RunRecord, save: Save):
    systems = {**record.systems, "svd": record.systems["svd"].model_copy(update={"unscored": 3})}
    metrics = {name: scores for name, scores in record.metrics.items() if name != "svd"}
    page = page_of(save(record.model_copy(update={"systems": systems, "metrics": metrics})))
    head, *rows = page.table("System")
    assert "Unscored|" not in head
    assert rows[4][1] == "–|"
    head, *rows = answers_of(page)
    assert head[-1] == "Unscored|"
    assert [row[-1] for row in rows] == ["0|", "0|", "0|", "0|", "3|", "0|", "0|"]


def test_a_score_of_fewer_examples_than_the_test_has_says_so(record: RunRecord, save: Save):
    metrics = {**record.metrics, "svd": {name: found.model_copy(update={"n": 97}) for name, found in record.metrics["svd"].items()}}
    _, *rows = page_of(save(record.model_copy(update={"metrics": metrics}))).table("System")
    assert rows[4][1] == "23.8|20.7 to 27.0,\nn = 97"
    assert rows[5][1] == "26.8|23.7 to 30.0"


def test_corrected_p_values_say_over_how_many(record: RunRecord, save: Save):
    text = page_of(save(record)).text
    assert "p: after Holm's correction for the 11 comparisons on this metric; small figures: the raw p." in text
    assert "p: after Holm's correction for the 11 comparisons on each metric" in text
    assert "Uncorrected" not in text
    fewer = [one for one in record.comparisons if one.metric != "bleu" or one.system == "pomona"]
    text = page_of(save(record.model_copy(update={"comparisons": fewer}))).text
    assert "p: after Holm's correction for the 11 comparisons on this metric" in text
    assert "p: after Holm's correction for all comparisons on each metric" in text


def test_a_difference_that_the_correction_does_not_bear_out(record: RunRecord, save: Save):
    comparisons = [
        dataclasses.replace(one, p_value=0.02, p_holm=0.0501)
        if (one.system, one.baseline, one.metric) == ("pomona", "zero_shot", "rouge_l")
        else one
        for one in record.comparisons
    ]
    page = page_of(save(record.model_copy(update={"comparisons": comparisons})))
    assert [cell.strip("|") for cell in page.table("Systems")[1]][3:] == ["0.050|raw 0.020", "100", "better,\xa0uncorrected"]
    assert "Uncorrected: the interval excludes 0, but the corrected p is above 0.05, so the difference may be chance." in page.text
    assert "16.3 to 20.4, better, uncorrected" in page.text


def test_an_interval_without_spread_is_unknown(record: RunRecord, save: Save):
    flat = record.metrics["zero_shot"]["bleu"].model_copy(update={"value": 0.0, "low": 0.0, "high": 0.0})
    metrics = {**record.metrics, "zero_shot": {**record.metrics["zero_shot"], "bleu": flat}}
    page = page_of(save(record.model_copy(update={"metrics": metrics})))
    assert page.table("System")[1][6] == "0.0|unknown"
    assert "An interval is unknown if the scores of the test examples do not vary." in page.text


def test_the_answers_and_their_warnings(record: RunRecord, save: Save):
    page = page_of(save(record))
    head, *rows = answers_of(page)
    assert [cell.strip("|") for cell in head] == ["System", "Empty", "Without an end", "Repetition", "Words", "Length"]
    assert [cell.strip("|") for cell in rows[0]] == ["Zero shot", "0.0%", "94.0%", "41.2%", "41.3", "4.62×"]
    alarming = [attributes for tag, attributes in page.elements if tag == "td" and "alarm" in (attributes.get("class") or "")]
    assert len(alarming) == 3
    assert "without an end: Zero shot (94.0%)." in page.text
    assert "before you trust its scores" not in page.text
    assert not [attributes for _, attributes in page.elements if attributes.get("class") == "box failed"]


def test_an_alarm_about_the_result_itself_is_at_the_top(record: RunRecord, save: Save):
    own = record.systems["pomona"]
    assert own.answers is not None
    systems = {
        **record.systems,
        "pomona": own.model_copy(update={"answers": own.answers.model_copy(update={"unended_share": 0.4})}),
    }
    page = page_of(save(record.model_copy(update={"systems": systems})))
    top = page.text[: page.text.index("Results")]
    assert "What may be wrong Read Pomona's answers before you trust its scores: 40.0% without an end." in top
    assert "Read the answers below first: something in them looks wrong." in top
    assert ("a", {"href": "#answers"}) in page.elements
    assert [attributes for _, attributes in page.elements if attributes.get("class") == "box failed"]


def test_signatures_are_at_the_foot(record: RunRecord, save: Save):
    page = page_of(save(record))
    assert page.tables[-1][0] == ["Metric|", "Signature|"]
    assert page.tables[-1][1][1] == "rouge-score|v:0.1.2|type:rougeL|tok:a-z0-9|stem:no|refs:best|"


def test_an_older_record_has_a_page(older: RunRecord, save: Save):
    folder = save(older)
    page = page_of(folder)
    head, *rows = page.table("System")
    assert head[3] == "p|"
    assert rows[6][1:4] == ["27.1|24.0 to 30.3", "+1.9|−0.2 to 3.9", "0.210|"]
    for absent in ("Holm", "corrected", "What the answers look like", "Signatures", "Documents cut"):
        assert absent not in page.text


def test_comparisons_rounds_and_inputs(record: RunRecord, save: Save):
    page = page_of(save(record))
    primary, others = (table for table in page.tables if table[0][0] == "Systems|")
    assert len(primary) == 1 + 11
    assert len(others) == 1 + 11 * 4
    assert [cell.strip("|") for cell in primary[1]] == [
        "Pomona against Zero shot",
        "+18.4",
        "16.3 to 20.4",
        "0.004|raw <\xa00.001",
        "100",
        "better",
    ]
    rounds = next(table for table in page.tables if table[0][1] == "Step|")
    assert len(rounds) == 11
    assert rounds[3][4:6] == ["yes|", "40% → 30%|"]
    assert [row[:2] for row in page.table("Split")[1:]] == [
        ["train|", "50|"],
        ["micro dev|", "16|"],
        ["dev|", "50|"],
        ["test|", "100|"],
    ]
    assert page.table("Source adapter")[1][0] == "stdlib|trained in this run"
    assert ["Total|", "9\xa0min 58\xa0s|", "100%|"] in page.table("Part")
    assert ["Tokens, train|", "184,320|", "–|"] in page.table("Part")
    assert ["packages.torch|", "2.15.0|"] in page.table("Environment")
    assert ["packages.peft|", "–|"] in page.table("Environment")
    assert "controller: name: grasp" in page.text


def test_ten_examples_at_even_distances(record: RunRecord, save: Save):
    page = page_of(save(record, examples=100))
    assert [index for index in range(100) if f"windows.py:cut_{index} " in page.text] == list(range(0, 100, 10))
    assert page.text.count("Cut the samples into windows (Pomona).") == 7
    assert page.text.count("خطة جديدة لتوسيع الرعاية الصحية في الريف.") == 3
    answers = [attributes for tag, attributes in page.elements if tag == "dd" and "text" in (attributes.get("class") or "")]
    assert len(answers) == 10 * 8
    assert all(attributes["dir"] == "auto" for attributes in answers)


def test_an_empty_answer_is_reported(record: RunRecord, save: Save):
    folder = save(record, examples=1)
    line = {"id": "a", "document": "d", "references": ["r"], "predictions": {"zero_shot": " \n", "unheard_of": "x"}}
    (folder / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    text = page_of(folder).text
    assert "Zero shot no text unheard of x" in text


def test_an_unscored_answer_is_reported(record: RunRecord, save: Save):
    folder = save(record, examples=1)
    line = {"id": "a", "document": "d", "references": ["r"], "predictions": {"zero_shot": None, "pomona": "x"}}
    (folder / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    assert "Zero shot not scored Pomona x" in page_of(folder).text


def test_everything_that_people_wrote_is_escaped(record: RunRecord, save: Save):
    evil = "</script></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'`&amp;<!--"
    systems = {**record.systems, "svd": record.systems["svd"].model_copy(update={"label": evil, "description": evil})}
    modules = [found.model_copy(update={"projection": evil, "module": evil}) for found in record.modules]
    changed = {"name": evil, "model": evil, "task": evil, "warnings": [evil], "error": evil, "started": evil, "systems": systems}
    changed |= {"modules": modules, "recipe": {evil: evil}, "environment": {evil: evil}, "fingerprints": {evil: evil}}
    changed |= {"signatures": {evil: evil}}
    changed |= {"sources": [record.sources[0].model_copy(update={"name": evil, "origin": evil})]}
    folder = save(record.model_copy(update=changed), examples=1)
    line = {"id": evil, "document": evil * 9, "references": [evil], "predictions": {"svd": evil, evil: evil}}
    (folder / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    text = write_report(folder).read_text()
    page = Page(text)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert len(page.scripts) == len(Page(write_report(save(record)).read_text()).scripts)
    assert page.text.count("<script>alert(1)</script>") >= 20


def test_the_page_needs_nothing_from_elsewhere(record: RunRecord, save: Save):
    text = write_report(save(record)).read_text()
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert len(text.encode()) < 1_000_000
    assert "url(" not in text
    assert "@import" not in text


def test_links_lead_to_sections_that_are_there(record: RunRecord, save: Save):
    for folder_record in (record, record.model_copy(update={"rounds": [], "answer": None, "systems": {}, "modules": []})):
        folder = save(folder_record, steps=1, examples=1)
        (folder / "history.jsonl").write_text("")
        page = page_of(folder)
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        links = [str(attributes["href"]).removeprefix("#") for tag, attributes in page.elements if tag == "a"]
        assert links
        assert set(links) <= set(ids)
        assert len(ids) == len(set(ids))


def test_every_figure_has_a_name_a_description_and_its_values(record: RunRecord, save: Save):
    page = page_of(save(record))
    drawn = [attributes for tag, attributes in page.elements if tag == "svg"]
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert len(drawn) == 8
    for attributes in drawn:
        assert attributes["role"] == "img"
        assert {attributes["aria-labelledby"], attributes["aria-describedby"]} <= ids
    assert len([1 for tag, attributes in page.elements if tag == "details" and attributes.get("class") == "values"]) == 8
    assert page.table("Round|".strip("|"))


def test_a_failed_run_has_a_page_that_says_so(record: RunRecord, save: Save):
    empty = {"metrics": {}, "comparisons": [], "systems": {}, "answer": None, "prune_ratio": None, "sparsity": None, "modules": []}
    folder = save(record.model_copy(update={**empty, "status": "failed", "error": "loss is not finite at step 57", "rounds": []}))
    (folder / "history.jsonl").unlink()
    (folder / "predictions.jsonl").unlink()
    page = page_of(folder)
    assert "This run failed, so nothing here is a final result" in page.text
    assert "What went wrong loss is not finite at step 57" in page.text
    assert "The folder has no history.jsonl" in page.text
    assert (folder / "report.html").stat().st_size < 30_000


def test_warnings_are_shown(record: RunRecord, save: Save):
    assert (
        "Half of all commits changed the mask."
        in page_of(save(record.model_copy(update={"warnings": ["Half of all commits changed the mask."]}))).text
    )


def test_the_same_run_gives_the_same_page_and_leaves_no_draft(record: RunRecord, save: Save):
    folder = save(record)
    before = {path.name for path in folder.iterdir()}
    first = write_report(folder).read_bytes()
    assert write_report(str(folder)).read_bytes() == first
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}


def test_a_page_that_cannot_be_written_is_one_line(record: RunRecord, save: Save):
    folder = save(record)
    (folder / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html: cannot be written: Is a directory"):
        write_report(folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".report")]


def test_a_long_prompt_is_shown_with_its_final_question(record: RunRecord, save: Save):
    folder = save(record, examples=1)
    prompt = "Trees bear fruit. " * 60 + "\n\nQuestion: What bears fruit?\nAnswer:"
    line = {"id": "a", "document": "d", "prompt": prompt, "references": ["Trees"], "predictions": {"pomona": "x"}}
    (folder / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    text = page_of(folder).text
    opening = text[text.index("Trees bear fruit.") : text.index("whole text")]
    assert "What bears fruit?" in opening
    assert len(opening) < 400
    assert text.count("Question: What bears fruit?") == 2  # in the opening, and in the whole


def test_the_page_of_whole_runs(grid: Callable[..., RunRecord], save: Save):
    page = page_of(save(grid()))
    assert "Prune ratio 30% best of 8 tried, 20 to 50%" in page.text
    assert "Sparsity 25.0% exact zeros, before they were removed" in page.text
    assert "Fitted to all rounds" not in page.text
    assert "The rounds in numbers" not in page.text
    assert ["Unit of pruning|", "rank-one components|"] in page.table("Choice")
    head, *rows = page.table("Module")
    assert head[-1] == "Importance|"
    assert len(rows) == 8


def test_tiles_of_other_answers(grid: Callable[..., RunRecord], save: Save):
    assert "Prune ratio 30% best of 8 tried Sparsity" in page_of(save(grid(low=0.3, high=0.3))).text
    assert "Sparsity 25.0% exact zeros; pruned entries are reset to their start values" in page_of(save(grid(reset="initial"))).text


def test_merge_weights_that_were_trained_have_a_column(record: RunRecord, save: Save):
    modules = [found.model_copy(update={"merge_weights": [1.0625, -0.25]}) for found in record.modules[:-1]] + record.modules[-1:]
    page = page_of(save(record.model_copy(update={"modules": modules})))
    head, *rows = page.table("Module")
    assert head[-1] == "Merge weights|"
    assert rows[0][-1] == "1.062, −0.250|"
    assert rows[-1][-1] == "–|"
    assert "their order is that of the merged adapters" in page.text


def test_groups_of_layers_with_ratios_of_their_own_are_told(record: RunRecord, save: Save):
    assert record.answer is not None
    assert "Layers count from 0" not in page_of(save(record)).text
    groups = [
        GroupRatio(first_layer=0, last_layer=14, prune_ratio=0.2, low=0.1, high=0.35),
        GroupRatio(first_layer=15, last_layer=15, prune_ratio=0.5, low=0.5, high=0.5),
        GroupRatio(first_layer=16, last_layer=29, prune_ratio=0.44, low=0.3, high=0.6),
    ]
    page = page_of(save(record.model_copy(update={"answer": dataclasses.replace(record.answer, by_group=tuple(groups))})))
    assert [[cell.strip("|") for cell in row] for row in page.table("Layers")[1:]] == [
        ["0 to 14", "20%", "10 to 35%"],
        ["15", "50%", "given"],
        ["16 to 29", "44%", "30 to 60%"],
    ]
    assert "The run learned a prune ratio for each of 3 groups of layers, 32% on average (95% interval 21 to 46%)" in page.text
    assert "The gain of one ratio for all layers over the groups' own ratios" in page.text
