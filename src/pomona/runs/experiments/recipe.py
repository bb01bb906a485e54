"""The experiment file: one recipe, varied over systems, settings and seeds, as typed YAML; and the cells that it is made of."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pomona.errors import InputError, spoken, suggest
from pomona.evaluation.baselines import find_baseline
from pomona.evaluation.scores import make_metrics
from pomona.runs.experiments.over_settings import members
from pomona.runs.read_recipe import parse_recipe, read_recipe
from pomona.runs.recipe import Recipe

EXPERIMENT, RESULT, TABLE = "experiment.yaml", "experiment.json", "table.md"
DEFAULT = "default"
"""The setting's name where the file has no settings."""

_BASELINE = "baseline"
_TAKEN = {EXPERIMENT, RESULT, TABLE, "scores.csv", "systems.csv", "report.html"}
_NOT_OVERRIDDEN = ("name", "seed", "evaluation.baselines")
_SURE = re.compile(r"\w[\w.-]*")
_LONGEST_NAME = 100  # bytes, of a part of a path


def _folder_name(name: str) -> str:
    if not _SURE.fullmatch(name) or len(name.encode()) > _LONGEST_NAME or name in _TAKEN:
        raise ValueError(f"{name!r} names a folder: use letters, digits, `_`, `-` and `.`, beginning with one of the first three")
    return name


def _recipe(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("give the file of a recipe, or the recipe itself")
    return value


Name = Annotated[str, AfterValidator(_folder_name)]
Seed = Annotated[int, Field(ge=0)]
Overrides = dict[str, Any]


class Experiment(BaseModel):
    """A matrix of systems x settings x seeds; every cell of it is a run of its own.

    Overrides are a mapping of a recipe's keys to values. A key may be dotted: `controller.prune_ratio` changes that one value and
    leaves its neighbours, and a number counts into a list (`sources.0.weight`). Whatever is given for a key takes the place of all
    that stood there: `controller: {name: fixed, prune_ratio: 0}` is the whole controller, and `tuning: {epochs: 2}` gives the
    other keys of `tuning` their defaults. First the setting's overrides are laid on the recipe, then the system's, each in its
    order.

    Args:
        name: of the experiment; its folder is `runs/<name>` by default.
        recipe: the file of a recipe, relative to this one, or the recipe itself.
        seeds: one or more. A run's seed draws its training and dev examples too. Test examples are drawn by the first seed for
            all, so that answers can be pooled.
        settings: name -> overrides, such as another model or other data; each has a table of its own. One without overrides where
            there are none.
        systems: name -> overrides; or `{baseline: <name>}`, with or without overrides, for a baseline in place of the main job.
        averages: name -> a pattern of settings' names, such as `*-12`: each system's average over these settings.
        against: the system that all others are compared with.
        metrics: as in a recipe's `evaluation`; the recipe's own where None.
        draws: of the bootstrap and of the tests, here and in the cells; the recipe's where None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name = "experiment"
    recipe: Annotated[str | dict[str, Any], BeforeValidator(_recipe)]
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    settings: dict[Name, Overrides] = Field(default_factory=dict)
    systems: dict[Name, Overrides] = Field(min_length=1)
    averages: dict[Name, str] = Field(default_factory=dict)
    against: str | None = None
    metrics: tuple[str | dict[str, Any], ...] | None = Field(default=None, min_length=1)
    draws: int | None = Field(default=None, ge=100)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError("a seed is there twice", field="seeds", value=list(self.seeds))
        if self.against is not None and self.against not in self.systems:
            raise InputError("no such system", field="against", value=self.against, fix=suggest(self.against, self.systems))
        for kind, named in (("settings", self.settings), ("systems", self.systems)):
            for name, overrides in named.items():
                _check_keys(overrides, f"{kind}.{name}", systems=kind == "systems")
        for name, pattern in self.averages.items():
            members(pattern, list(self.all_settings), f"averages.{name}")
        make_metrics(self.metrics or (), "en")
        return self

    @property
    def all_settings(self) -> Mapping[str, Overrides]:
        """The settings, or the one that there is without any."""
        return self.settings or {DEFAULT: {}}

    def yaml(self) -> str:
        """The experiment as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)


@dataclass(frozen=True)
class Cell:
    """One run of the experiment.

    Args:
        setting, system, seed: where in the matrix.
        recipe: what to run.
        only: the baseline that is made in place of the main job.
        path: of the run folder, within the experiment's.
    """

    setting: str
    system: str
    seed: int
    recipe: Recipe
    only: str | None
    path: str


def read_experiment(path: Path | str) -> tuple[Experiment, list[Cell]]:
    """Read and check an experiment file; the recipe stands in the result itself, every value spelt out.

    Returns:
        The experiment and its cells, setting by setting and seed by seed.

    Raises:
        InputError: the file, its recipe, or any cell's is wrong: the file and the key, and what was overridden.
    """
    path = Path(path)
    given = read_recipe(path, Experiment)
    if isinstance(given.recipe, str):
        base = read_recipe(path.parent / given.recipe, Recipe)
    else:
        base = _parsed(given.recipe, {}, path, "recipe")
    experiment = given.model_copy(update={"recipe": base.resolved()})
    return experiment, list(_cells(experiment, path))


def _cells(experiment: Experiment, file: Path) -> Iterator[Cell]:
    imposed = {"evaluation.baselines": [], "evaluation.metrics": experiment.metrics, "evaluation.draws": experiment.draws}
    imposed = {key: value for key, value in imposed.items() if value is not None}
    several = len(experiment.all_settings) > 1
    assert isinstance(experiment.recipe, dict)
    for setting, of_setting in experiment.all_settings.items():
        base = _parsed(experiment.recipe, {**of_setting, **imposed}, file, f"settings.{setting}").resolved()
        for seed in experiment.seeds:
            for system, given in experiment.systems.items():
                where = f"systems.{system} in settings.{setting}" if several else f"systems.{system}"
                folder = f"{system}-{seed}"
                path = f"{setting}/{folder}" if several else folder
                own = {key: value for key, value in given.items() if key != _BASELINE}
                only = given.get(_BASELINE)
                imposed_here = {**imposed, "evaluation.baselines": [only] if only else []}
                last = {"name": f"{experiment.name}/{path}", "seed": seed, **imposed_here}
                yield Cell(setting, system, seed, _parsed(base, {**own, **last}, file, where), only, path)


def _check_keys(overrides: Overrides, where: str, *, systems: bool) -> None:
    """Refuse keys that are the experiment's own, or of which one holds the other."""
    for key, value in overrides.items():
        field = f"{where}.{key}"
        if key == _BASELINE and systems:
            if not isinstance(value, str):
                raise InputError("the name of a baseline is expected", field=field, value=value)
            find_baseline(value)
        elif key in _NOT_OVERRIDDEN:
            raise InputError("cannot be overridden: the experiment says it itself", field=field, fix="Leave it out")
        elif "=" in key or not all(key.split(".")):
            raise InputError("is no key of a recipe", field=field, fix="Write for example controller.prune_ratio")
        elif holder := next((other for other in overrides if key.startswith(f"{other}.")), None):
            raise InputError(f"stands within {holder!r}, which is overridden as a whole", field=field, fix="Give one of the two")


def _parsed(content: Mapping[str, Any], overrides: Mapping[str, Any], file: Path, where: str) -> Recipe:
    """The recipe with overrides; what is wrong is said with `where` it comes from."""
    try:
        # As a value is written in YAML, so `--set` reads it; a mapping or a list stays whole.
        texts = [f"{key}={yaml.safe_dump(value)}" for key, value in overrides.items()]
        return parse_recipe(copy.deepcopy(dict(content)), Recipe, texts)
    except InputError as error:
        raise InputError(str(error).removeprefix(f"{spoken('--set')}: "), file=file, field=where) from error


def select(
    cells: Sequence[Cell],
    *,
    systems: Sequence[str] = (),
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Cell]:
    """The cells of some systems, settings and seeds; of all where none are named.

    Raises:
        InputError: one that the experiment does not have.
    """
    for option, wanted, known in (
        ("--systems", systems, {cell.system for cell in cells}),
        ("--settings", settings, {cell.setting for cell in cells}),
        ("--seeds", seeds, {cell.seed for cell in cells}),
    ):
        for one in wanted:
            if one not in known:
                raise InputError("is not in the experiment", field=option, value=one, fix=suggest(str(one), map(str, known)))
    return [
        cell
        for cell in cells
        if (not systems or cell.system in systems)
        and (not settings or cell.setting in settings)
        and (not seeds or cell.seed in seeds)
    ]
