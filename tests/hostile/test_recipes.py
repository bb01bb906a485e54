"""Recipes and experiments that cannot be meant: exit 2 with one line, in no time, and nothing is written."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.end_to_end.setting import call, listing

LEAST = "data: {train: x.jsonl}\nsources: [{name: a, adapter: a}]\n"
GROWING = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
GROWING_MAPS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 12)
)

# What the recipe holds -> a part of the line that must come.
FILES: dict[str, tuple[str, str]] = {
    "aliases that grow": (GROWING + LEAST, "holds more than 20,000 values, once its aliases are written out"),
    "aliases that grow, and nothing else": (GROWING, "once its aliases are written out"),
    "aliases that grow in a merge": (GROWING_MAPS + LEAST, "once its aliases are written out"),
    "aliases that grow in a reward": (f"{GROWING}{LEAST}reward: {{loss: *a9}}\n", "once its aliases"),
    "an alias within itself": (f"{LEAST}task: &t [*t]\n", "an alias stands within what it names"),
    "a mapping within itself": (f"{LEAST}task: &t {{name: *t}}\n", "an alias stands within what it names"),
    "ten megabytes": (f"{LEAST}name: {'x' * 10_000_000}\n", "1,048,576 at most are read"),
    "half a million values": (LEAST + "x: [" + "1," * 400_000 + "]\n", "holds more than 20,000 values"),
    "a hundred thousand lists in lists": ("- " * 100_000, "not YAML"),
    "a hundred thousand brackets": ("[" * 100_000, "not YAML"),
    "a key twice": (f"{LEAST}seed: 1\nseed: 2\n", "recipe.yaml:4: the key 'seed' is given twice"),
    "a key twice, deeper": (f"{LEAST}tuning: {{epochs: 1, batch_size: 2, epochs: 3}}\n", "the key 'epochs' is given twice"),
    "a key twice in a source": ("data: {train: x}\nsources: [{name: a, adapter: a, name: b}]\n", "the key 'name' is given twice"),
    "a tag of Python": (f"{LEAST}name: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
    "a NUL character": (f'{LEAST}model: "a\\0b"\n', "model: holds a NUL character"),
    "a NUL character in a path": ('data: {train: "x\\0.jsonl"}\nsources: [{name: a, adapter: a}]\n', "data.train: holds a NUL"),
    "half a pair": (f'{LEAST}model: "a\\uD800b"\n', "model: holds a NUL character or half of a surrogate pair"),
    "a NUL character in a key": (f'{LEAST}"a\\0": 1\n', "holds a NUL character"),
    "a bell": (f"{LEAST}name: a\x07b\n", "not YAML"),
}  # fmt: skip

# As they stand in the YAML.
NAMES = [
    *("'../../x'", "/tmp/x", "..", ".", "a/../b", "a//b", "a/", "'~'", "~/x", r"a\..\b", "' '", "''", "x" * 300),
    *(r'"\e[31m"', r'"\u202eabc"', r'"a\nb"', r'"a\rb"', r'"\u2028"', r'"\u009b2J"'),
]

# What is overridden -> a part of the line that must come.
VALUES: dict[str, str] = {
    "lora.rank=1000000000": "lora.rank: must be at most 65,536: no matrix of a model has so many rows (got 1000000000)",
    "lora.alpha=1e300": "lora.alpha: must be at most 1,000,000: the update is multiplied by alpha / rank",
    "merge={method: svd, rank: 100000000}": "merge.rank: must be at most 65,536",
    "evaluation.draws=100000000000": "evaluation.draws: must be at most 1,000,000: the bootstrap",
    "evaluation.batch_size=100000000": "evaluation.batch_size: must be at most 65,536",
    "tuning.batch_size=1.0e+20": "tuning.batch_size: unable to parse input string as an integer, exceeded maximum size",
    "tuning.accumulation_steps=100000000000000000000": "tuning.accumulation_steps: must be at most 65,536",
    "tuning.epochs=1000000000": "tuning.epochs: must be at most 10,000: a run would not end",
    "tuning.epochs=true": "tuning.epochs: a number is expected, and not true or false (got True)",
    "tuning.batch_size=false": "tuning.batch_size",
    "tuning.learning_rate=true": "tuning.learning_rate: a number is expected, and not true or false",
    "tuning.learning_rate=1e300": "tuning.learning_rate: must be at most 1,000: training would diverge",
    "tuning.learning_rate=.inf": "tuning.learning_rate: must be above 0",
    "tuning.learning_rate=.nan": "tuning.learning_rate",
    "tuning.weight_decay=1e40": "tuning.weight_decay: must be at most 1,000",
    "tuning.gradient_clip=1e300": "tuning.gradient_clip: must be at most",
    "tuning.max_tokens=1000000000000": "tuning.max_tokens: must be at most 16,777,216: no model has a context",
    "tuning.checkpoint_steps=100000000000000000000": "tuning.checkpoint_steps: must be at most",
    "sources.0.weight=1e300": "sources.0.weight: must be at most 1,000,000,000,000: an adapter's update is multiplied by it",
    "sources.0.weight=[0.5, -1e13]": "sources.0.weight[1]: must be at most 1,000,000,000,000",
    "sources.0.weight=true": "sources.0.weight: must be a number (got True)",
    "sources.0.weight=.inf": "sources.0.weight: must be a finite number",
    "sources.0.examples=true": "sources.0.examples",
    "seed=true": "seed: a number is expected, and not true or false (got True)",
    "seed=99999999999999999999999999": "seed: must be at most 9,223,372,036,854,775,807: a seed",
    "splits.micro_dev=true": "micro_dev",
    "splits.train=100000000000000000000": "splits.train: must be at most",
    "select_tolerance=true": "select_tolerance",
    "controller={name: fixed, prune_ratio: true}": "controller.prune_ratio: a number is expected, and not true or false",
    "controller={name: tpe, trials: 1000000000}": "1000000000 ratios of 4 decimals do not fit",
    "pruning.interval_steps=true": "pruning.interval_steps: a number is expected, and not true or false",
    "task={name: summarization, max_new_tokens: 100000000}": "leaves no room for a prompt before an answer of",
    "evaluation.decoding={num_beams: 100000}": "evaluation.decoding.num_beams: must be at most 1,024",
    "evaluation.tune={learning_rate: [1e300]}": "evaluation.tune.learning_rate.0: must be at most 1,000",
    "reward={loss: true}": "reward",
}  # fmt: skip


def refused(folder: Path, *arguments: str) -> str:
    """The one line with which a command is refused, in no time and with nothing written."""
    before, started = listing(folder), time.process_time()
    outcome = call(folder, *arguments)
    assert time.process_time() - started < 5
    assert (outcome.code, outcome.out) == (2, ""), outcome
    (line,) = outcome.err.splitlines()
    assert line.isprintable()
    assert len(line) < 700
    assert listing(folder) == before
    return line


def write(folder: Path, content: str) -> None:
    (folder / "recipe.yaml").write_text(content, encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_no_recipe_is(name: str, tmp_path: Path) -> None:
    content, part = FILES[name]
    write(tmp_path, content)
    assert part in refused(tmp_path, "adapt", "recipe.yaml")


@pytest.mark.parametrize("verb", ["experiment", "train-adapter", "rank-sources", "evaluate"])
def test_every_verb_reads_its_recipe_so(verb: str, tmp_path: Path) -> None:
    write(tmp_path, GROWING + LEAST)
    assert "once its aliases are written out" in refused(tmp_path, verb, "recipe.yaml")
    write(tmp_path, f"{LEAST}seed: 1\nseed: 2\n")
    assert "the key 'seed' is given twice" in refused(tmp_path, verb, "recipe.yaml")


@pytest.mark.parametrize("verb", ["adapt", "experiment", "train-adapter"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_leads_to_no_other_folder(verb: str, name: str, tmp_path: Path) -> None:
    work = tmp_path / "a" / "b"
    work.mkdir(parents=True)
    body = {
        "adapt": LEAST,
        "train-adapter": "data: {train: x.jsonl}\n",
        "experiment": "recipe: {data: {train: x}, sources: [{name: a, adapter: a}]}\nsystems: {a: {}}\n",
    }
    write(work, f"name: {name}\n{body[verb]}")
    assert "name: " in refused(work, verb, "recipe.yaml")
    assert listing(tmp_path).keys() == {"a", "a/b", "a/b/recipe.yaml"}


@pytest.mark.parametrize("place", ["systems", "settings", "averages"])
def test_names_within_an_experiment_name_folders_too(place: str, tmp_path: Path) -> None:
    named = {"systems": "{a: {}}", "settings": "{b: {}}", "averages": "{c: '*'}"} | {place: "{../../x: {}}"}
    recipe = "recipe: {data: {train: x}, sources: [{name: a, adapter: a}]}\n"
    write(tmp_path, recipe + "".join(f"{key}: {value}\n" for key, value in named.items()))
    assert "'../../x' names a folder" in refused(tmp_path, "experiment", "recipe.yaml")


@pytest.mark.parametrize("name", ['"\\e]0;owned\\a"', '"a\\nb"', '"\\u202edcba"', '""', '"  "'])
def test_a_source_has_a_name_that_can_be_shown(name: str, tmp_path: Path) -> None:
    write(tmp_path, f"data: {{train: x}}\nsources: [{{name: {name}, adapter: a}}]\n")
    assert "sources.0.name: a name has letters on one line" in refused(tmp_path, "adapt", "recipe.yaml")


@pytest.mark.parametrize("override", VALUES)
def test_a_value_that_cannot_be_meant(override: str, tmp_path: Path) -> None:
    write(tmp_path, LEAST)
    assert VALUES[override] in refused(tmp_path, "adapt", "recipe.yaml", "--set", override)


def test_a_named_pipe_as_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")
    for verb in ("adapt", "experiment", "train-adapter"):
        assert "recipe.yaml: is a named pipe and no file" in refused(tmp_path, verb, "recipe.yaml")
    assert "/dev/zero: is a device and no file" in refused(tmp_path, "adapt", "/dev/zero")
