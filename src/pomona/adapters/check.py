"""A full check of adapters in folders before a merge, with all findings instead of only the first error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pomona.adapters.base_identity import identity_of_folder
from pomona.adapters.base_misfits import misfits
from pomona.adapters.base_modules import BaseModules, respelled
from pomona.adapters.compatible import check_compatible, own_warnings
from pomona.adapters.config import CONFIG_FILE, read_config
from pomona.adapters.experts import without_factors
from pomona.adapters.export import TARGETS, Base, doubts_for, problems_for, read_base
from pomona.adapters.export.base_folder import BaseFolder, read_base_folder
from pomona.adapters.factors import Adapter
from pomona.adapters.full_tensors import merged_whole
from pomona.adapters.full_tensors_fit import full_tensors_fit
from pomona.adapters.read import check_finite, read_adapter
from pomona.adapters.same_base import Base as OneBase
from pomona.adapters.same_base import base_warnings
from pomona.errors import InputError, spoken, suggest


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        level: `error` (it will not work), `warning` (it may not work as intended) or `ok`.
        subject: the file or folder.
        message: the finding and its reason, in one line.
    """

    level: Literal["error", "warning", "ok"]
    subject: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", spoken(self.message))


def check_adapters(
    paths: Sequence[Path | str],
    base: Path | str | None = None,
    targets: Sequence[str] = (),
    modules_of: Callable[[Path, Collection[str]], BaseModules | None] | None = None,
    base_name: str | None = None,
) -> list[Finding]:
    """Read each adapter with all values, and check whether the readable ones can be merged, fit the base, and load.

    Args:
        paths: adapter folders, one or more.
        base: the base model's folder, whose safetensors headers are compared, or for `llama.cpp` its GGUF file; None: no base.
        targets: programs of `TARGETS` that must load the result; an obstacle is an error. Without targets, all programs are
            checked, and an obstacle is a warning.
        modules_of: makes the table of modules of a base's class, from its folder and the modules to look up
            (`pomona.backbone.base_modules`); None: use only the headers of the base's files.
        base_name: the user's name of the base, if it is not its folder.

    Returns:
        For each folder an `ok` or an `error`, in order, with its warnings; then findings between the adapters; then between each
        adapter and the base; then between each adapter and the programs.

    Raises:
        InputError: an unknown target.
    """
    for target in targets:
        if target not in TARGETS:
            raise InputError("unknown program", field="--for", value=target, fix=suggest(target, TARGETS))
    findings: list[Finding] = []
    readable: list[Adapter] = []
    for path in paths:
        try:
            adapter = read_adapter(path)
            check_finite(adapter)
        except InputError as error:
            findings.append(Finding("error", str(path), str(error)))
        else:
            readable.append(adapter)
            findings.extend(_about(adapter))
    known = folder = None
    about_base: list[Finding] = []
    if base is not None:
        wanted = {module for adapter in readable for module in adapter}
        table = modules_of(Path(base), wanted) if modules_of is not None and Path(base).is_dir() else None
        folder, known, about_base = _open_base(Path(base), table)
        if folder is not None:
            about_base += [found for adapter in readable for found in _against(adapter, folder)]
            about_base += _other_base(readable, Path(base), base_name or str(base))
            readable = [respelled(adapter, folder.modules) for adapter in readable]
    if len(readable) > 1:
        findings.extend(_between(readable, ", ".join(str(path) for path in paths)))
    findings.extend(about_base)
    findings.extend(found for adapter in readable for found in _for_programs(adapter, targets, known))
    return findings


def _about(adapter: Adapter) -> list[Finding]:
    subject = str(adapter.provenance["path"])
    base = f", trained on {adapter.base_model}" if adapter.base_model else ""
    config = read_config(Path(str(adapter.provenance.get("folder", subject))) / CONFIG_FILE)
    unused = config.targets.without(adapter.modules)
    unused_parameters = without_factors(config.target_parameters, adapter)
    warnings = list(own_warnings(adapter))
    if unused:
        warnings.append(f"target_modules names {', '.join(unused)}, for which the file has no factors")
    if unused_parameters:
        warnings.append(f"target_parameters names {', '.join(unused_parameters)}, for which the file has no factors")
    whole = f", and whole {', '.join(adapter.whole)}" if adapter.whole else ""
    return [
        Finding("ok", subject, f"{len(adapter)} modules{whole}, all values finite{base}"),
        *(Finding("warning", subject, warning) for warning in warnings),
    ]


def _between(adapters: Sequence[Adapter], together: str) -> list[Finding]:
    try:
        warnings = check_compatible(adapters)
        warnings += merged_whole([(str(adapter.provenance["path"]), adapter) for adapter in adapters])[1]
    except InputError as error:
        return [Finding("error", together, str(error))]
    own = {f"{adapter.provenance['path']}: {warning}" for adapter in adapters for warning in own_warnings(adapter)}
    return [Finding("warning", together, warning) for warning in warnings if warning not in own]


def _open_base(path: Path, table: BaseModules | None) -> tuple[BaseFolder | None, Base | None, list[Finding]]:
    """The folder, if it is readable; its information for exports, if present; and its findings."""
    findings: list[Finding] = []
    folder = known = None
    is_gguf = path.suffix == ".gguf" and path.is_file()
    try:
        if not is_gguf:
            folder = read_base_folder(path, table)
        known = read_base(path)
    except InputError as error:
        # A folder whose config lacks the information for exports can still be compared.
        findings.append(Finding("error" if folder is None else "warning", str(path), str(error)))
    if is_gguf and known is not None:
        told = "a GGUF file has llama.cpp's names: its shapes are compared for llama.cpp only"
        findings.append(Finding("warning", str(path), told))
    return folder, known, findings


def _against(adapter: Adapter, base: BaseFolder) -> list[Finding]:
    subject = f"{adapter.provenance['path']} on {base.folder}"
    found = misfits(adapter, base)
    fitting = len(adapter) - sum(misfit.modules for misfit in found)
    findings = [Finding(misfit.level, subject, misfit.message) for misfit in found]
    if fitting:
        findings.insert(0, Finding("ok", subject, f"{fitting} of {len(adapter)} modules have the base's shapes"))
    return findings + [Finding(level, subject, message) for level, message in full_tensors_fit(adapter, base)]


def _other_base(adapters: Sequence[Adapter], path: Path, name: str) -> list[Finding]:
    """Compare each adapter's stated base with the folder, because shapes may fit by chance."""
    named = [(str(adapter.provenance["path"]), adapter) for adapter in adapters]
    base = OneBase(name, identity_of_folder(path))
    return [Finding("warning", str(path), warning) for warning in base_warnings(named, base)]


def _for_programs(adapter: Adapter, targets: Sequence[str], base: Base | None) -> list[Finding]:
    subject = str(adapter.provenance["path"])
    findings: list[Finding] = []
    for target in targets or TARGETS:
        problems = problems_for(target, adapter, base)
        findings.extend(
            Finding("error" if targets else "warning", subject, f"{target} will not load it: it {one}") for one in problems
        )
        findings.extend(Finding("warning", subject, doubt) for doubt in doubts_for(target, adapter, base) if not problems)
        if targets and not problems:
            findings.append(Finding("ok", subject, f"{target} will load it, exported with --for {target}"))
    return findings
