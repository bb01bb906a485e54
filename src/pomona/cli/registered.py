"""What is registered, read from the sources: names, descriptions and parameters without importing torch.

A room's `__init__` imports the files whose classes are registered. The same imports are followed here, and of each class with
`@<registry>.register("name")` the docstring and the fields are read. A class that says them in another way than plainly is asked
itself, by importing its room: slower, never wrong.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

ROOMS = {
    "merge_methods": "pomona.merging",
    "trainable_merges": "pomona.backbone.trainable",
    "importance_metrics": "pomona.importance",
    "controllers": "pomona.control",
    "tasks": "pomona.data.tasks",
    "metrics": "pomona.metrics",
    "baselines": "pomona.evaluation",
}
"""Registry -> the package that fills it."""

Entries = dict[str, dict[str, Any]]


class _NotPlainError(Exception):
    """The sources do not say it in a way that is read here."""


def registered() -> dict[str, Entries]:
    """Kind -> name -> `description` and `parameters` (with their defaults, None where there is none)."""
    found: dict[str, Entries] = {}
    for registry, package in ROOMS.items():
        try:
            kind, entries = read_room(registry, package)
        except _NotPlainError:
            kind, entries = ask_room(registry, package)
        found[kind] = entries
    return found


def ask_room(registry: str, package: str) -> tuple[str, Entries]:
    """Kind and entries of a room, by importing it."""
    filled = getattr(importlib.import_module(package), registry)
    return filled.kind, {
        name: {
            "description": filled.describe(name),
            "parameters": {key: None if default is MISSING else default for key, default in filled.parameters(name).items()},
        }
        for name in filled
    }


def read_room(registry: str, package: str) -> tuple[str, Entries]:
    """Kind and entries of a room, by reading its files."""
    sources = _Sources()
    kind, entries = None, {}
    mentioned = 0
    for module in sources.reached_from(package):
        mentioned += sum(_registers(node, registry) for node in ast.walk(sources[module]))
        for statement in sources[module].body:
            kind = kind or _kind(statement, registry)
            if isinstance(statement, ast.ClassDef) and (name := _registered_as(statement, registry)):
                described = ast.get_docstring(statement)
                if not described:
                    raise _NotPlainError(name)
                fields = sources.fields(module, statement)
                entries[name] = {"description": described.splitlines()[0], "parameters": fields}
    if kind is None or not entries or len(entries) != mentioned:
        raise _NotPlainError(registry)
    return kind, dict(sorted(entries.items()))


def _kind(statement: ast.stmt, registry: str) -> str | None:
    """K in `registry: Registry[T] = Registry("K")`."""
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(args=[ast.Constant(value=str(kind))])) if name == registry:
            return kind
    return None


def _registers(node: ast.AST, registry: str) -> bool:
    """Whether it is `<registry>.register`."""
    return isinstance(node, ast.Attribute) and node.attr == "register" and ast.unparse(node.value) == registry


def _registered_as(statement: ast.ClassDef, registry: str) -> str | None:
    for decorator in statement.decorator_list:
        match decorator:
            case ast.Call(func=function, args=[ast.Constant(value=str(name))]) if _registers(function, registry):
                return name
    return None


class _Sources:
    """The package's modules as syntax trees, parsed once each."""

    def __init__(self) -> None:
        self._trees: dict[str, ast.Module] = {}

    def __getitem__(self, module: str) -> ast.Module:
        if module not in self._trees:
            path = _path(module)
            if path is None:
                raise _NotPlainError(module)
            self._trees[module] = ast.parse(path.read_text(encoding="utf-8"))
        return self._trees[module]

    def imports(self, module: str) -> Iterator[tuple[str, str, str]]:
        """(name here, module, name there) of what is imported from Pomona when `module` is."""
        for statement in self[module].body:
            if isinstance(statement, ast.ImportFrom) and statement.level:
                raise _NotPlainError(module)
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("pomona."):
                for alias in statement.names:
                    yield alias.asname or alias.name, statement.module or "", alias.name
            if isinstance(statement, ast.Import):
                yield from (("", alias.name, "") for alias in statement.names if alias.name.startswith("pomona."))

    def reached_from(self, package: str) -> list[str]:
        """The package and those of its modules that are imported with it."""
        reached = [package]
        for module in reached:
            imported = {name for _, there, original in self.imports(module) for name in (there, f"{there}.{original}")}
            reached += sorted(one for one in imported if one.startswith(f"{package}.") and one not in reached and _path(one))
        return reached

    def fields(self, module: str, cls: ast.ClassDef) -> dict[str, Any]:
        """The dataclass fields of a class and their defaults, those of its bases first, as `dataclasses` orders them."""
        found: dict[str, Any] = {}
        for base in reversed(cls.bases):
            where, named = self._class(module, base)
            if named is not None:
                found |= self.fields(where, named)
        decorators = " ".join(map(ast.unparse, cls.decorator_list))
        if "dataclass" in decorators and "kw_only=True" not in decorators:  # keyword-only: see `Registry`
            for statement in cls.body:
                if isinstance(statement, ast.AnnAssign):
                    special = ast.unparse(statement.annotation).partition("[")[0].rpartition(".")[2]
                    if special in {"InitVar", "KW_ONLY"}:
                        raise _NotPlainError(special)
                    if special != "ClassVar":
                        default = None if statement.value is None else self._value(module, statement.value)
                        found[ast.unparse(statement.target)] = default
        return found

    def _class(self, module: str, base: ast.expr) -> tuple[str, ast.ClassDef | None]:
        """Where a base class stands; None where it is not Pomona's (`ABC`, `Protocol[T]`) and so brings no fields."""
        name = ast.unparse(base).partition("[")[0]
        for statement in self[module].body:
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return module, statement
        for here, there, original in self.imports(module):
            if here == name:
                return self._class(there, ast.Name(original))
        if name in {"ABC", "Protocol", "Generic", "NamedTuple", "object"}:
            return module, None
        raise _NotPlainError(name)

    def _value(self, module: str, value: ast.expr) -> Any:
        """A default: a literal, or the name of one in Pomona."""
        if isinstance(value, ast.Name):
            return self._constant(module, value.id)
        try:
            return ast.literal_eval(value)
        except ValueError as error:
            raise _NotPlainError(ast.unparse(value)) from error

    def _constant(self, module: str, name: str) -> Any:
        for statement in self[module].body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    return self._value(module, value)
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                    return self._value(module, value)
        for here, there, original in self.imports(module):
            if here == name:
                return self._constant(there, original)
        raise _NotPlainError(name)


def _path(module: str) -> Path | None:
    """Where a module's source stands, found without importing it."""
    import pomona

    place = Path(pomona.__path__[0]).joinpath(*module.split(".")[1:])
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return path if path.is_file() else None


def plain(found: Mapping[str, Entries]) -> str:
    """Kinds, names and descriptions, a line each."""
    lines = []
    for kind, entries in found.items():
        lines.append(f"{kind}:")
        lines += [f"  {name:<20}{entry['description']}" for name, entry in entries.items()]
    return "\n".join(lines)
