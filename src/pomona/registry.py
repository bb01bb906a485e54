"""A registry maps a name to a frozen dataclass whose fields are the component's hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from pomona.errors import InputError, suggest

T = TypeVar("T")
C = TypeVar("C")


class Registry(Generic[T]):
    """Name -> component class. One registry a room, filled by importing the room's files.

    A component's hyperparameters are its dataclass fields, but for keyword-only ones: those are settings that the program gives.

    Args:
        kind: what is registered, in the singular, for error messages: "merge method".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Class decorator that files a frozen dataclass under `name`.

        Raises:
            ValueError: the name is taken, or the class is not a frozen dataclass (a programming error, not a user's).
        """

        def file(cls: type[C]) -> type[C]:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {self._classes[name]} and {cls}")
            parameters = getattr(cls, "__dataclass_params__", None)
            if parameters is None or not parameters.frozen:
                raise ValueError(f"{self.kind} {name!r}: {cls} must be a frozen dataclass")
            self._classes[name] = cls  # pyright: ignore[reportArgumentType]
            return cls

        return file

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise InputError(f"no such {self.kind}", value=name, fix=suggest(name, self._classes))
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    def create(self, name: str, parameters: Mapping[str, object] | None = None) -> T:
        """Make the component called `name`.

        Args:
            name: a registered name.
            parameters: values for the dataclass's fields; the rest keep their defaults.

        Raises:
            InputError: unknown name or parameter (the nearest known one is named), or a value that the component refuses.
        """
        cls = self[name]
        known = self.parameters(name)
        given = dict(parameters or {})
        for key in given:
            if key not in known:
                raise InputError(f"{self.kind} {name!r} has no parameter {key!r}", fix=suggest(key, known))
        return cls(**given)

    def parameters(self, name: str) -> dict[str, object]:
        """The hyperparameters of a component and their defaults (`dataclasses.MISSING` where it has none)."""
        fields = dataclasses.fields(self[name])  # pyright: ignore[reportArgumentType]
        return {field.name: field.default for field in fields if field.init and not field.kw_only}

    def describe(self, name: str) -> str:
        """The first line of the component's docstring."""
        return (self[name].__doc__ or "").strip().splitlines()[0]
