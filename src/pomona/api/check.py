"""Will these adapters, or these recipes, work?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pomona.api.base_model import called, find_base, table_of
from pomona.errors import InputError

if TYPE_CHECKING:
    from pomona.adapters.check import Finding
    from pomona.runs.base_plan import Plan


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        findings: in order; each with `level` (`error`, `warning` or `ok`), `subject` and `message`.
        plans: recipe -> its plan, where nothing is wrong with it.
    """

    findings: tuple[Finding, ...]
    plans: dict[str, Plan] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(one.level == "error" for one in self.findings)

    def __repr__(self) -> str:
        lines = [f"{one.level}: {one.subject}: {one.message}" for one in self.findings]
        return "\n".join([f"Checked: {'ok' if self.ok else 'not ok'}", *lines])


def check(*paths: Path | str, base: str | None = None, targets: Sequence[str] = (), trial: bool = False) -> Checked:
    """Check adapters (readable, finite, fit to be merged, for the base, for other programs) and recipes.

    Adapters are read with all values, and of the base only the headers of its files. A recipe's model is loaded, and its work is
    planned.

    Args:
        paths: adapter folders or `hub:owner/name`, to be merged with each other, and recipes (`.yaml`).
        base: the base model: a folder, `embedded`, a hub id in the local cache, or for llama.cpp a GGUF file.
        targets: `peft`, `vllm`, `llama.cpp`: it is an error if one would not load the adapters.
        trial: of a recipe, try one step of the model, for time and memory.

    Returns:
        All findings; wrong input is a finding too.

    Raises:
        InputError: an unknown target; `base` or `targets` without an adapter.
    """
    recipes = [Path(path) for path in paths if Path(path).suffix in {".yaml", ".yml"}]
    folders = [path for path in paths if Path(path) not in recipes]
    if not folders and (base is not None or targets):
        option = "--base" if base is not None else "--for"
        raise InputError("is about adapters, and only recipes are given", field=option, fix="Leave it out, or give adapters too")
    from pomona.adapters.check import Finding, check_adapters  # here, so that wrong arguments are found without torch

    findings: list[Finding] = []
    if folders:
        found = None if base is None else find_base(base) or Path(base)
        name = None if base is None else called(base)
        findings = check_adapters(folders, found, targets, None if found is None else table_of, name)
    plans: dict[str, Plan] = {}
    for recipe in recipes:
        from pomona.runs.plan_file import plan_file

        try:
            plan = plans[str(recipe)] = plan_file(recipe, trial=trial)
            findings.extend(plan.findings(str(recipe)))
        except InputError as error:
            findings.append(Finding("error", str(recipe), str(error)))
    return Checked(tuple(findings), plans)
