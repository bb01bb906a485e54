"""Workers that are Ray actors, on one machine or on a cluster: one for each GPU, or for a share of the cores."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pomona.errors import InputError
from pomona.runs.experiments.workers import Engine, WorkerLostError

_CORES = 4
"""Of one worker on a cluster without GPUs, where `--workers` is not given."""


def ray_engine(count: int | None, folder: Path) -> Engine:
    """Workers on the cluster that `RAY_ADDRESS` names, or on a cluster of this machine alone that ends with the program.

    All machines must see the experiment's folder, the models and the data under the same paths.

    Args:
        count: of workers; None: the cluster's GPUs, or a quarter of its cores.
        folder: the experiment's.

    Raises:
        InputError: Ray is not installed, or its cluster cannot be reached; the cluster has fewer GPUs than workers are asked for.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # an actor without GPUs keeps what it can see
        import ray
    except ImportError as error:
        raise InputError("needs Ray", field="--engine", value="ray", fix="Install pomona[ray]") from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            address = os.environ.get("RAY_ADDRESS", "this machine")
            raise InputError(f"Ray's cluster cannot be reached ({error})", field="RAY_ADDRESS", value=address) from error
    has: Mapping[str, float] = ray.cluster_resources()
    gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 1))
    count = count or gpus or max(1, cores // _CORES)
    if gpus and count > gpus:
        raise InputError(
            f"the cluster has {gpus} GPUs, and each worker takes one", field="--workers", value=count, fix="Give fewer"
        )
    share = max(1, cores // count)
    resources = {"num_cpus": share, "num_gpus": 1 if gpus else 0}
    return Engine(count, lambda _: _Actor(folder.resolve(), share, resources), "Ray")


class _Actor:
    """A worker in some process of the cluster."""

    def __init__(self, folder: Path, threads: int, resources: dict[str, int]) -> None:
        import ray

        from pomona.runs.experiments.cell_runner import CellRunner

        # A lost actor is not restarted by Ray: the experiment begins another worker, with the cell's checkpoint.
        actor: Any = ray.remote(CellRunner).options(**resources, max_restarts=0, max_concurrency=1)
        self._actor = actor.remote(folder, threads, Path.cwd())

    def run(self, path: str) -> str | None:
        """See `Worker`."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        try:
            return ray.get(self._actor.run.remote(path))
        except RayActorError as error:
            raise WorkerLostError(f"its worker was lost ({' '.join(str(error).split())})") from error
        except RayTaskError as error:
            return str(error.cause)

    def stop(self) -> None:
        """See `Worker`; the cell's latest checkpoint is what it keeps."""
        import ray

        with contextlib.suppress(Exception):  # the cluster may be gone
            ray.kill(self._actor)
