"""Small open registries: a decorator, a lookup, and lazy entry points for packages that add their own.

A package adds a kernel without touching QCascade by declaring an entry point::

    [project.entry-points."qcascade.kernels"]
    my_kernel = "my_package.kernels:MyKernel"

The built-in kernels, cost models and targets come in through the same door.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from qcascade.errors import QCascadeError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects, filled by `register` and by the entry points of `group`.

    Args:
        kind: What the registry holds, in the singular, for messages.
        group: Entry point group looked at for names that were not registered in code.
        error: Raised for an unknown name.

    Example:
        >>> colours = Registry[int]("colour", "example.colours", QCascadeError)
        >>> colours.register("red")(0xFF0000)
        16711680
        >>> colours.names()
        ('red',)
    """

    def __init__(self, kind: str, group: str, error: type[QCascadeError]) -> None:
        self._kind = kind
        self._group = group
        self._error = error
        self._items: dict[str, T] = {}
        self._loaded: dict[str, T] = {}
        self._sources: list[tuple[Callable[[], Iterable[str]], Callable[[str], T | None]]] = []

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an object under `name`; a name is taken once."""

        def add(item: T) -> T:
            if self._items.setdefault(name, item) is not item:
                raise self._error(f"{self._kind} {name!r} is registered already; choose another name.")
            return item

        return add

    def add_source(self, names: Callable[[], Iterable[str]], load: Callable[[str], T | None]) -> None:
        """File a family of objects that are made when they are first asked for.

        Args:
            names: What to list, quickly; it may be a pattern ("line-N") where `load` reads the name.
            load: The object of a name, or None where the name is not of this family.

        Example:
            >>> squares = Registry[int]("square", "example.squares", QCascadeError)
            >>> squares.add_source(lambda: ["square-N"], lambda name: int(name[7:]) ** 2)
            >>> squares.get("square-12")
            144
        """
        self._sources.append((names, load))

    def names(self) -> tuple[str, ...]:
        """All names, registered in code or declared by installed packages, in alphabetical order."""
        listed = (name for names, _ in self._sources for name in names())
        declared = (entry.name for entry in _declared(self._group, tuple(sys.path)))
        return tuple(sorted({*self._items, *listed, *declared}))

    def get(self, name: str) -> T:
        """The object called `name`; an entry point or a source is loaded at its first use.

        Raises:
            QCascadeError: Of the registry's own class; it is unknown. The message lists those that are known.
        """
        if name in self._items:
            return self._items[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T:
        for _, load in self._sources:
            if (found := load(name)) is not None:
                return found
        for entry in _declared(self._group, tuple(sys.path)):
            if entry.name == name:
                loaded: T = entry.load()
                return loaded
        names = self.names()
        close = get_close_matches(name, names, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise self._error(f"unknown {self._kind} {name!r}{hint}; known: {', '.join(names) or 'none'}.")


@lru_cache(maxsize=32)
def _declared(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of a group; reading the installed packages takes tens of milliseconds, so once for each search path."""
    return tuple(entry_points(group=group))
