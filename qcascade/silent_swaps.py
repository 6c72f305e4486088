"""Modules put in the place of others inside a hybrid: its graph does not call them, which is said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qcascade.errors import ExecutionError
from qcascade.kernels.base import QuantumKernel


@dataclass(frozen=True)
class _Place:
    """What was compiled at a path: its class, and the parameters that a graph may read there."""

    kind: type[nn.Module]
    parameters: tuple[str, ...]


class SwapWatch:
    """Which modules are where in the trees whose graphs are called.

    Args:
        trees: Those trees, as compiled.
        called: Paths in the hybrid of the modules that graphs do call.
    """

    def __init__(self, trees: Iterable[nn.Module], called: Iterable[str]) -> None:
        held = list(trees)
        self._known = [_places(_inside(tree)) for tree in held]
        self._seen = [_classes(tree) for tree in held]
        self._called = tuple(called)

    def warn(self, hybrid: nn.Module, trees: Callable[[], Iterable[nn.Module]], stacklevel: int) -> None:
        """Say of modules that are of another class than was compiled, new or gone, that this changes nothing.

        A module of the same class is not looked at: the graph takes its parameters by their names, so it counts.

        Args:
            hybrid: What the modules are named in.
            trees: Gives the modules whose graphs are called.
            stacklevel: Of the warning, from here.

        Raises:
            ExecutionError: A parameter that was compiled is no longer there.
        """
        if torch.compiler.is_compiling():
            return
        for number, (known, tree) in enumerate(zip(self._known, trees(), strict=False)):
            if (classes := _classes(tree)) == self._seen[number]:
                continue
            now = dict(_inside(tree))
            at = next((path for path, module in hybrid.named_modules() if module is tree and path), "")
            named = {f"{at}.{path}".lstrip("."): path for path in {**known, **now}}
            said = "; ".join(
                change
                for name, path in named.items()
                if not self._runs(name) and (change := _change(known.get(path), now.get(path), name))
            )
            if said:
                warnings.warn(
                    f"{said}. A hybrid's graph takes parameters by name and calls no module inside it but its kernels, so this changes "
                    "nothing. Put adapters and the like into the model before it is compiled: qcascade.compile(adapted).",
                    stacklevel=stacklevel + 1,
                )
            self._seen[number] = classes
            known.clear()
            known.update(_places(now.items()))

    def _runs(self, path: str) -> bool:
        """Whether a module is one of those that graphs call, or inside one."""
        return any(path == called or path.startswith(f"{called}.") for called in self._called)


def _change(was: _Place | None, module: nn.Module | None, path: str) -> str:
    """What happened at a path, "" where nothing did."""
    if was is None:
        assert module is not None
        return f"{path}, a {type(module).__name__}, was not there when the model was compiled"
    if gone := [name for name in was.parameters if not isinstance(getattr(module, name, None), Tensor)]:
        now = "is gone" if module is None else f"is a {type(module).__name__} now"
        raise ExecutionError(
            f"{path} {now}: the graph of this hybrid needs {', '.join(f'{path}.{name}' for name in gone)}. Put back what was there, "
            "and change the model before it is compiled."
        )
    if module is None:
        return f"{path} is gone and was a {was.kind.__name__}"
    return "" if _kind(module) is was.kind else f"{path} is a {type(module).__name__} now and was a {was.kind.__name__}"


def _places(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, _Place]:
    return {
        path: _Place(_kind(module), tuple(name for name, held in module._parameters.items() if held is not None))
        for path, module in modules
    }


def _inside(tree: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules inside a tree by path, without kernels, and without parametrizations, which run."""
    for name, module in tree._modules.items():
        if module is None or name == "parametrizations" or isinstance(module, QuantumKernel):
            continue
        yield prefix + name, module
        if module._modules:
            yield from _inside(module, f"{prefix}{name}.")


def _classes(tree: nn.Module) -> list[tuple[str, type[nn.Module]]]:
    """Names and classes of all modules inside a tree: equal wherever nothing was changed, and quick to compare."""
    found, waiting = [], [tree]
    while waiting:
        for name, module in waiting.pop()._modules.items():
            if module is not None:
                found.append((name, type(module)))
                if module._modules:
                    waiting.append(module)
    return found


def _kind(module: nn.Module) -> type[nn.Module]:
    """Its class, without the one that `torch.nn.utils.parametrize` derives."""
    return type(module).__bases__[0] if "parametrizations" in module._modules else type(module)
