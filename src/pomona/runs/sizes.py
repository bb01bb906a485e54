"""How it is said what a system is made of: which modules it adapts, how many parameters it has, and how it was trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pomona.runs.record import SystemDescription


def said_modules(modules: Collection[str]) -> str:
    """`q_proj, v_proj (60 modules)`, or `7 kinds (210 modules)` where there are many."""
    return said_kinds(kinds(modules))


def kinds(modules: Collection[str]) -> dict[str, int]:
    """The last part of the path -> how many of the modules have it, in order."""
    found: dict[str, int] = {}
    for module in modules:
        kind = module.rpartition(".")[2]
        found[kind] = found.get(kind, 0) + 1
    return found


def said_kinds(found: Mapping[str, int]) -> str:
    """As `said_modules`, of kinds that are counted already."""
    total = sum(found.values())
    names = ", ".join(found) if len(found) <= 3 else f"{len(found)} kinds"
    return f"{names} ({total} {'module' if total == 1 else 'modules'})"


def said_count(number: int) -> str:
    """A number of parameters: `512`, `9.2 k`, `1.68 M`."""
    for size, unit, digits in ((10**9, "G", 2), (10**6, "M", 2), (10**3, "k", 1)):
        if number >= size:
            return f"{number / size:.{digits}f} {unit}"
    return str(number)


def said_duration(seconds: float) -> str:
    """A length of time: `8 s`, `4 min`, `2.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def said_training(found: Mapping[str, float | None]) -> str:
    """The optimizer's settings: `rate 0.0005, x 0.85 an epoch, 4 epochs, batches of 5 x 2`; and how many trainings it took."""
    known = {name: value for name, value in found.items() if value is not None}
    shown: list[str] = []
    for name, text, left_out in (
        ("learning_rate", "rate {:g}", None),
        ("learning_rate_decay", "x {:g} an epoch", 1),
        ("weights_learning_rate", "weights' rate {:g}", None),
        ("epochs", "{:g} epochs", None),
        ("batch_size", "batches of {:g}", None),
        ("accumulation_steps", "{:g} batches a step", 1),
        ("runs", "{:g} runs", 1),
    ):
        if name in known and known[name] != left_out:
            shown.append(text.format(known[name]))
    return ", ".join(shown)


def unlike(systems: Mapping[str, SystemDescription], reference: str) -> list[str]:
    """A line for each trained system that differs from another one in what decides a comparison before anything else.

    Args:
        systems: by name; those that were not trained by a gradient are passed over.
        reference: the other one's name.
    """
    base, lines = systems[reference], []
    for name, one in systems.items():
        if name == reference or not (one.trained_parameters and base.trained_parameters and one.adapted and base.adapted):
            continue
        found: list[str] = []
        if one.adapted != base.adapted:
            found.append(f"it adapts {said_kinds(one.adapted)}, {reference} {said_kinds(base.adapted)}")
        if is_notable(one.trained_parameters, base.trained_parameters):
            found.append(
                f"it trains {said_count(one.trained_parameters)} parameters, {reference} {said_count(base.trained_parameters)}"
            )
        settings, others = one.training or {}, base.training or {}
        alike = set(one.tuned_over or ()) if one.tuned_over == base.tuned_over else set()  # what the dev set chose for each
        alike |= {"weights_learning_rate"} if "learning_rate" in alike else set()
        alike |= {"runs"} if alike else set()  # the whole grid has its own table
        for key, value in settings.items():
            if key not in alike and others.get(key, value) != value:
                found.append(f"{key} {_setting(value)}, {reference} {_setting(others[key])}")
        lines += [f"{name} is not trained like {reference}: {'; '.join(found)}"] if found else []
    return lines


def _setting(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def is_notable(number: int, reference: int) -> bool:
    """Whether two numbers of trained parameters differ by more than 10 % of the second."""
    return abs(number - reference) > 0.1 * reference
