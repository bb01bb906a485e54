"""Trackers of experiments: trackio, TensorBoard, Weights & Biases, MLflow, each imported only where a recipe names it.

All have the same figures: `<system>/loss`, `.../learning_rate`, `.../prune_ratio`, `.../dev_loss`, `.../dev_score` over optimizer
steps, `<system>/round_*` of each round of a controller, and `scores/<system>/<metric>` at the end; and the report as an artefact.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from pomona.errors import MissingPackageError

TrackerName = Literal["trackio", "tensorboard", "wandb", "mlflow"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)

_PROJECT = "pomona"
_STEP_FIGURES = ("loss", "learning_rate", "prune_ratio", "dev_loss", "dev_score")
_ROUND_FIGURES = ("prune_ratio_after", "loss_before", "mean", "deviation", "mask_change")


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        MissingPackageError: names the package and the extra.
    """
    for name in names:
        if find_spec(name) is None:
            extra = "trackers" if name == "tensorboard" else name
            fix = f"Install it: pip install 'pomona[{extra}]', or leave it out"
            raise MissingPackageError(f"needs the package {name}", field="report_to", value=name, fix=fix)


def trackers(names: Sequence[str]) -> list[Tracker]:
    """The trackers of these names; none writes or connects before a run begins."""
    made: Mapping[str, type[Tracker]] = {"trackio": Trackio, "tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}
    return [made[name]() for name in names]


class Tracker(ABC):
    """A callback that turns events into figures, at optimizer steps."""

    def __init__(self) -> None:
        self._begun = False

    def on_event(self, event: Mapping[str, object]) -> None:
        """See `pomona.runs.callbacks`. A run that was done before it began has nothing to track."""
        kind, system = event["kind"], event.get("system")
        if kind == "begin":
            recipe = event["recipe"]
            assert isinstance(recipe, Mapping)
            self.begin(str(event["name"]), Path(str(event["folder"])), recipe)
            self._begun = True
        elif not self._begun:
            return
        elif kind in ("step", "epoch", "settled"):
            self.log(_figures(event, _STEP_FIGURES, f"{system}/"), _step(event))
        elif kind == "round":
            self.log(_figures(event, _ROUND_FIGURES, f"{system}/round_"), _step(event))
        elif kind == "scores":
            self.log(_figures(event, list(event), f"scores/{system}/"), None)
        elif kind == "report":
            self.report(Path(str(event["path"])))
        elif kind == "end":
            self.end(done=event["status"] == "done")

    @abstractmethod
    def begin(self, name: str, folder: Path, recipe: Mapping[str, object]) -> None:
        """A run of this name begins in a folder, with a resolved recipe."""

    @abstractmethod
    def log(self, figures: Mapping[str, float], step: int | None) -> None:
        """Figures at a step of their system; None: at the end of the run."""

    @abstractmethod
    def report(self, path: Path) -> None:
        """The report is written."""

    @abstractmethod
    def end(self, *, done: bool) -> None:
        """The run is over."""


class TensorBoard(Tracker):
    """Event files in `tensorboard/` of the run folder; a resume takes the place of what was there."""

    def begin(self, name: str, folder: Path, recipe: Mapping[str, object]) -> None:
        """See `Tracker`."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=0)
        self._writer.add_text("recipe", _code(recipe))

    def log(self, figures: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step or 0)

    def report(self, path: Path) -> None:
        """A text with the report's path: TensorBoard shows no pages."""
        self._writer.add_text("report", f"[{path.name}]({path.resolve().as_uri()})")

    def end(self, *, done: bool) -> None:
        """See `Tracker`."""
        self._writer.close()


class Trackio(Tracker):
    """A run of the project `pomona`."""

    def begin(self, name: str, folder: Path, recipe: Mapping[str, object]) -> None:
        """See `Tracker`."""
        self._trackio: Any = importlib.import_module("trackio")
        self._trackio.init(project=_PROJECT, name=name, config=dict(recipe))

    def log(self, figures: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        self._trackio.log(dict(figures), **({} if step is None else {"step": step}))

    def report(self, path: Path) -> None:
        """See `Tracker`."""
        self._trackio.save(str(path))

    def end(self, *, done: bool) -> None:
        """See `Tracker`."""
        self._trackio.finish()


class Wandb(Tracker):
    """A run of the project `pomona`, or of `WANDB_PROJECT`; each system has a step of its own."""

    def begin(self, name: str, folder: Path, recipe: Mapping[str, object]) -> None:
        """See `Tracker`."""
        import os

        self._wandb: Any = importlib.import_module("wandb")
        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        self._run = self._wandb.init(project=project, name=name, dir=str(folder), config=dict(recipe))
        self._name = name
        self._systems: set[str] = set()

    def log(self, figures: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        if step is None or not figures:
            self._run.summary.update(dict(figures))
            return
        system = next(iter(figures)).partition("/")[0]
        if system not in self._systems:  # steps of the whole run would have to grow, and each system counts from 0
            self._systems.add(system)
            self._run.define_metric(f"{system}/*", step_metric=f"{system}/step")
        self._run.log({**figures, f"{system}/step": step})

    def report(self, path: Path) -> None:
        """See `Tracker`."""
        artefact = self._wandb.Artifact(f"report-{''.join(c if c.isalnum() else '-' for c in self._name)}", type="report")
        artefact.add_file(str(path))
        self._run.log_artifact(artefact)

    def end(self, *, done: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if done else 1)


class Mlflow(Tracker):
    """A run of the experiment `pomona`, on the server that `MLFLOW_TRACKING_URI` names."""

    def begin(self, name: str, folder: Path, recipe: Mapping[str, object]) -> None:
        """See `Tracker`."""
        self._mlflow: Any = importlib.import_module("mlflow")
        self._mlflow.set_experiment(_PROJECT)
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_dict(dict(recipe), "recipe.yaml")

    def log(self, figures: Mapping[str, float], step: int | None) -> None:
        """See `Tracker`."""
        self._mlflow.log_metrics(dict(figures), **({} if step is None else {"step": step}))

    def report(self, path: Path) -> None:
        """See `Tracker`."""
        self._mlflow.log_artifact(str(path))

    def end(self, *, done: bool) -> None:
        """See `Tracker`."""
        self._mlflow.end_run("FINISHED" if done else "FAILED")


def _figures(event: Mapping[str, object], names: Sequence[str], prefix: str) -> dict[str, float]:
    """The numbers among these keys of an event, under a prefix."""
    found: dict[str, float] = {}
    for name in names:
        value = event.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found


def _step(event: Mapping[str, object]) -> int:
    step = event["step"]
    assert isinstance(step, int)
    return step


def _code(recipe: Mapping[str, object]) -> str:
    import yaml

    return "".join(f"    {line}\n" for line in yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True).splitlines())
