"""Data sets of the Hugging Face hub, read through `datasets`."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pomona.data.formats.arrow import INSTALL_DATA, table_rows
from pomona.data.formats.rows import HUB, Row
from pomona.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    import datasets

_NAME = re.compile(rf"{HUB}(?P<name>[\w.-]+/[\w.-]+)(?::(?P<config>[^@]+))?(?:@(?P<split>.+))?")
_LONGEST_REASON = 300
_SCRIPT = re.compile("Dataset scripts are no longer supported|Couldn't find cache for")
"""The errors of `datasets` for a data set that is a script: at first, and once a copy of another configuration is in the cache."""
_PARQUET = "refs/convert/parquet"
"""The branch where the hub keeps its own copy of a data set as Parquet: a folder for each configuration."""


def parse_hub(source: str) -> list[Row]:
    """The rows of a data set on the hub, numbered from 1; see `table_rows`.

    No code of the data set's author is run, and a local folder of the same name is ignored. Where the data set is a script, the
    hub's own copy as Parquet is read. Without a network, or with HF_HUB_OFFLINE=1, a data set that was read before comes from the
    cache of `datasets`.

    Args:
        source: `hub:owner/name`, with `:config` if the data set has several, and with `@split` for another split than train;
            `datasets` also reads slices: `hub:owner/name:config@train[:1000]`.

    Raises:
        InputError: an invalid name; no such data set, configuration or split; no network; or as `table_rows`.
        MissingPackageError: `datasets` is not installed.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise InputError("not a data set of the hub", value=source, fix="Write hub:owner/name, hub:owner/name:config@split")
    if importlib.util.find_spec("datasets") is None:
        raise MissingPackageError("data sets of the hub need datasets, which is not installed", file=source, fix=INSTALL_DATA)

    with _quiet():
        try:
            # Arrow does not decode images and sounds.
            table = _load(match["name"], match["config"], match["split"] or "train").with_format("arrow")[:]
        except Exception as error:  # the possible errors have no common class
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise InputError(
                f"cannot be read from the hub: {reason[:_LONGEST_REASON]}",
                file=source,
                fix="Check the name, the configuration (:config) and the split (@split), and whether the hub can be reached "
                "(HF_HUB_OFFLINE, HF_TOKEN)",
            ) from error
    return table_rows(table, source)


def _load(name: str, config: str | None, split: str) -> datasets.Dataset:
    """The split, from the hub's copy where the data set itself is a script."""
    import datasets

    address = f"hf://datasets/{name}"  # it excludes a local folder of that name
    try:
        return datasets.load_dataset(address, config, split=split)
    except (RuntimeError, ValueError) as error:
        if not _SCRIPT.search(str(error)):
            raise
        return datasets.load_dataset(address, data_dir=config or "default", split=split, revision=_PARQUET)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and messages about retries; restores the settings afterwards."""
    import datasets
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, shown, bars = logger.level, not datasets.are_progress_bars_disabled(), not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()
        if bars:
            enable_progress_bars()
