"""Which sizes of a free dimension a captured graph holds for.

What comes in: the exported graphs of a model, whose placeholders have symbolic sizes. What goes out: for every free dimension
that has one, a `SizeRule`. Code that asks for a size (`if n > 6:`, `x.reshape(b, n // 4, 4, d)`) is traced as it went for the
example, and export writes the answer down as a guard: a graph holds where its guards hold.

Export also writes down what it assumed in order to go on, which says nothing of the code: that no size is 0 or 1, and that two
sizes are not equal by chance. Such guards are left out, and so are those that tie dimensions of several inputs to one another:
operators of the graph notice these themselves. The others are read by trying sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils._sympy.printers import PythonPrinter

from qcascade.capture.graph import SizeRule

_TRIED = 128  # sizes; four times the example's where that is more
_NAMES = {"math": math, "min": min, "max": max, "abs": abs, "float": float}

Place = tuple[str, int]  # name of a placeholder and dimension


@dataclass(frozen=True, slots=True)
class _Guard:
    """A condition on sizes."""

    symbols: tuple[sympy.Symbol, ...]
    holds: Callable[..., Any]

    def at(self, sizes: dict[sympy.Symbol, int]) -> bool:
        try:
            return bool(self.holds(*[sizes[s] for s in self.symbols]))
        except (ZeroDivisionError, ValueError, OverflowError):
            return False


def size_rules(graphs: Iterable[fx.GraphModule]) -> tuple[dict[Place, SizeRule], list[str]]:
    """The rules that hold for all graphs of a model, and notes where sizes are asked for and no rule says how.

    Example:
        >>> from torch import nn
        >>> from qcascade.capture.export import export_graph
        >>> class Pairs(nn.Module):
        ...     def forward(self, x):
        ...         return x.reshape(x.shape[0], x.shape[1] // 2, 2).mean(2)
        >>> print(size_rules([export_graph(Pairs(), (torch.ones(3, 8),), {})])[0]["x", 1])
        a multiple of 2
    """
    allowed: dict[Place, set[int]] = {}
    tried: dict[Place, list[int]] = {}
    for graph in graphs:
        for place, sizes, good in _tried(graph):
            tried[place] = sizes
            allowed[place] = allowed.get(place, good) & good
    rules, notes = {}, []
    for place, sizes in tried.items():
        rule = _rule(sorted(allowed[place]), sizes)
        if rule is None:
            notes.append(
                f"the model's code asks for the size of dimension {place[1]} of {place[0]} in a way that calls are not checked for; "
                "its answer for the example was captured"
            )
        elif rule != SizeRule(sizes[0]):
            rules[place] = rule
    return rules, notes


def _tried(graph: fx.GraphModule) -> list[tuple[Place, list[int], set[int]]]:
    """For each free dimension that guards ask for: the sizes tried, and those they hold for."""
    dimensions: dict[sympy.Symbol, list[Place]] = {}
    environment: Any = None
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for axis, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                    environment = size.node.shape_env
                    dimensions.setdefault(size.node.expr, []).append((str(node.name), axis))
    if environment is None:
        return []
    example = {symbol: int(value) for symbol, value in environment.backed_var_to_val.items()}
    conditions = dict.fromkeys(guard.expr.xreplace(environment.replacements) for guard in environment.guards)
    guards = [_guard(condition) for condition in conditions if condition.free_symbols and not _assumed(condition)]
    found = []
    for symbol, places in dimensions.items():
        own = [guard for guard in guards if symbol in guard.symbols]
        if not own:
            continue
        last, upper = max(_TRIED, 4 * example[symbol]), environment.bound_sympy(symbol).upper
        sizes = list(range(2, 1 + (min(last, int(upper)) if upper.is_Integer else last)))
        good = set(sizes).intersection(
            *(held for guard in own if (held := _held(guard, symbol, sizes, example)) is not None)
        )
        found += [(place, sizes, good) for place in places]
    return found


def _held(
    guard: _Guard, symbol: sympy.Symbol, sizes: Sequence[int], example: dict[sympy.Symbol, int]
) -> set[int] | None:
    """The sizes a guard holds for; None where that depends on other dimensions."""
    held = {n for n in sizes if guard.at({**example, symbol: n})}
    if len(guard.symbols) > 1:
        later = {s: n + 1 for s, n in example.items()}
        if held != {n for n in sizes if guard.at({**later, symbol: n})}:
            return None
    return held


def _guard(condition: sympy.Basic) -> _Guard:
    symbols = tuple(sorted(condition.free_symbols, key=str))
    text = PythonPrinter().doprint(condition)
    # torch's own way of checking guards: its printer's text of its own expression, evaluated
    return _Guard(symbols, eval(f"lambda {', '.join(map(str, symbols))}: {text}", dict(_NAMES)))


def _assumed(condition: sympy.Basic) -> bool:
    """Whether a guard says no more than that something is not 0 or 1, or that two sizes differ."""
    if not isinstance(condition, sympy.core.relational.Relational):
        return False
    left, right = condition.args
    if isinstance(condition, sympy.Ne):
        constants = [side for side in (left, right) if side.is_Integer]
        return not constants or int(constants[0]) in (0, 1)
    if isinstance(condition, (sympy.Lt, sympy.Le)):
        left, right = right, left
    least = {sympy.Gt: (0, 1), sympy.Lt: (0, 1), sympy.Ge: (1, 2), sympy.Le: (1, 2)}.get(type(condition), ())
    return bool(right.is_Integer) and int(right) in least and not left.is_Symbol


def _rule(good: list[int], sizes: list[int]) -> SizeRule | None:
    """The rule that allows just these of the sizes tried; None where there is none."""
    if not good:
        return None
    step = math.gcd(*(b - a for a, b in pairwise(good))) or 1
    rule = SizeRule(good[0], step, good[0] % step)
    return rule if good == [n for n in sizes if rule.accepts(n)] else None
