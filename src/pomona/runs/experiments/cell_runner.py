"""What a worker does: it reads the experiment's folder and runs the cells that it is told, with all that they have in common."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from pomona.errors import PomonaError
from pomona.runs.experiments.recipe import EXPERIMENT, read_experiment
from pomona.runs.plan import prepare
from pomona.runs.shared_work import SharedWork


class CellRunner:
    """Runs cells one after the other in this process.

    Args:
        folder: the experiment's; its `experiment.yaml` names every cell.
        threads: of torch.
        directory: that relative paths in the experiment start from.
    """

    def __init__(self, folder: Path, threads: int, directory: Path) -> None:
        os.chdir(directory)
        torch.set_num_threads(threads)
        experiment, cells = read_experiment(folder / EXPERIMENT)
        self._folder, self._cells = folder, {cell.path: cell for cell in cells}
        self._shared = SharedWork(test_seed=experiment.seeds[0])

    def run(self, path: str) -> str | None:
        """Run a cell, or go on with it; why it failed, or None."""
        from pomona.runs.experiments.run import run_cell

        cell = self._cells[path]
        try:
            plan = prepare(cell.recipe, only=cell.only, shared=self._shared, trial=False)
            return run_cell(cell, plan, self._folder, self._shared)
        except PomonaError as error:
            return str(error)
