"""Small open registries: a decorator, a lookup, and lazy entry points for packages that add their own.

A package adds a kernel without touching QCascade by declaring an entry point::

    [project.entry-points."qcascade.kernels"]
    my_kernel = "my_package.kernels:MyKernel"

The built-in kernels, cost models and targets come in through the same door.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
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

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an object under `name`; a name is taken once."""

        def add(item: T) -> T:
            if self._items.setdefault(name, item) is not item:
                raise self._error(f"{self._kind} {name!r} is registered already; choose another name.")
            return item

        return add

    def names(self) -> tuple[str, ...]:
        """All names, registered in code or declared by installed packages, in alphabetical order."""
        return tuple(sorted({*self._items, *(e.name for e in entry_points(group=self._group))}))

    def get(self, name: str) -> T:
        """The object called `name`; an entry point is loaded at its first use."""
        if name not in self._items:
            for entry in entry_points(group=self._group):
                if entry.name == name:
                    self._items[name] = entry.load()
                    break
            else:
                raise self._error(f"unknown {self._kind} {name!r}; known: {', '.join(self.names()) or 'none'}.")
        return self._items[name]
