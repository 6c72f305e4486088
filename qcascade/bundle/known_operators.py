"""A program written in operators that torch's ONNX exporter knows, node by node, without tracing it anew.

torch decomposes every program that it writes as ONNX: it traces the whole graph twice, which takes about half of an export, to
replace a handful of operators that have no ONNX form by some that have one. What `torch.export` gives of our graphs has but
few of them, and each has a plain equivalent. What comes in: an exported program, which is changed in place, and the operators
that are known. What comes out: whether it holds no others now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import torch
from torch import SymInt, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

_aten = torch.ops.aten
_Change: TypeAlias = Callable[[fx.Node, ExportedProgram], None]
_CHECKS = {  # the exporter itself takes them out
    _aten.sym_constrain_range_for_size.default,
    _aten._assert_async.default,
    _aten._assert_async.msg,
    _aten._assert_scalar.default,
    _aten._assert_tensor_metadata.default,
}
_RENAMED: Mapping[Any, Any] = {
    _aten.__and__.Tensor: _aten.bitwise_and.Tensor,
    _aten.__or__.Tensor: _aten.bitwise_or.Tensor,
    _aten.reshape.default: _aten.reshape.default,  # may alias; nothing here writes to what it is given
}


def in_known_operators(program: ExportedProgram, known: Collection[Any]) -> bool:
    """Rewrite what is not known, if all of it has an equivalent.

    Args:
        program: As `torch.export.export` gives it; changed in place.
        known: Operators that have an ONNX form.

    Returns:
        Whether it holds no others now; where not, it is as it was.

    Example:
        >>> class Masks(torch.nn.Module):
        ...     def forward(self, x, y):
        ...         return (x & y).to(torch.float32)
        >>> masks = torch.tensor([True, False]), torch.tensor([True, True])
        >>> program = torch.export.export(Masks(), masks)
        >>> in_known_operators(program, {_aten.bitwise_and.Tensor, _aten._to_copy.default})
        True
        >>> [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        ['aten.bitwise_and.Tensor', 'aten._to_copy.default']
    """
    nodes = [node for node in program.graph.nodes if node.op not in ("placeholder", "output")]
    if not all(node.op == "call_function" and _has_equivalent(node.target, known) for node in nodes):
        return False
    changes = [(node, _REWRITES[node.target](node)) for node in nodes if node.target in _REWRITES]
    if any(change is None for _, change in changes):
        return False
    for node, change in changes:
        assert change is not None
        change(node, program)
    for node in nodes:
        if node.target in _CHECKS:
            program.graph.erase_node(node)
        node.target = _RENAMED.get(node.target, node.target)
    program.graph.eliminate_dead_code()
    program.graph.lint()
    program.graph_module.recompile()
    return True


def _has_equivalent(target: Any, known: Collection[Any]) -> bool:
    """Whether an operator is known, or may be rewritten into known ones."""
    writes = isinstance(target, OpOverload) and (
        target._schema.is_mutable or torch.Tag.maybe_aliasing_or_mutating in target.tags
    )
    renamed = _RENAMED.get(target) in known
    return target in _CHECKS or target in _REWRITES or renamed or (target in known and not writes)


def _value(node: Any) -> torch.Tensor | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


def _cast(node: fx.Node) -> _Change | None:
    """`Tensor.to`: nothing, or another type of numbers."""
    given, wanted = _value(node.args[0]), _value(node)
    if given is None or wanted is None:
        return None
    if given.dtype == wanted.dtype:
        return _identity(node)
    return lambda node, program: _become(node, _aten._to_copy.default, node.args[0], dtype=wanted.dtype)


def _dropout(node: fx.Node) -> _Change | None:
    """Dropout in evaluation mode."""
    return _identity(node) if len(node.args) == 3 and node.args[2] is False else None


def _identity(node: fx.Node) -> _Change | None:
    """What changes nothing; a result that is an input stays a node of its own."""
    source = node.args[0]
    given = isinstance(source, fx.Node) and source.op == "placeholder"
    return None if given and any(user.op == "output" for user in node.users) else _leave_out


def _transpose(node: fx.Node) -> _Change | None:
    """`Tensor.T`: all axes in reverse."""
    value = _value(node)
    if value is None:
        return None
    axes = list(reversed(range(value.dim())))
    return lambda node, program: _become(node, _aten.permute.default, node.args[0], axes)


def _reshape(node: fx.Node) -> _Change | None:
    """`flatten` and `unflatten`: sizes are numbers, sizes of the program's inputs, and for one other −1."""
    value = _value(node)
    if value is None:
        return None
    asked = [None if isinstance(size, int) else _asked(size, node.graph) for size in value.shape]
    if sum(isinstance(s, SymInt) and a is None for s, a in zip(value.shape, asked, strict=True)) > 1:
        return None

    def change(node: fx.Node, program: ExportedProgram) -> None:
        sizes = [
            s if isinstance(s, int) else -1 if a is None else _size(*a) for s, a in zip(value.shape, asked, strict=True)
        ]
        _become(node, _aten.reshape.default, node.args[0], sizes)

    return change


def _become(node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> None:
    node.target, node.args, node.kwargs = target, args, kwargs


def _leave_out(node: fx.Node, program: ExportedProgram) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    program.graph_signature.replace_all_uses(node.name, source.name)
    program.graph.erase_node(node)


def _asked(size: SymInt, graph: fx.Graph) -> tuple[fx.Node, int] | None:
    """The input, and its axis, that has a size."""
    for given in (node for node in graph.nodes if node.op == "placeholder"):
        value = _value(given)
        for axis, other in enumerate(() if value is None else value.shape):
            if isinstance(other, SymInt) and other.node.expr == size.node.expr:
                return given, axis
    return None


def _size(given: fx.Node, axis: int) -> fx.Node:
    """The node that asks an input for a size, before all that may need it; made where there is none."""
    last = [node for node in given.graph.nodes if node.op == "placeholder"][-1]
    found = next((user for user in given.users if user.target is _SIZE and user.args == (given, axis)), None)
    if found is None:
        value = _value(given)
        assert value is not None
        with given.graph.inserting_after(last):
            found = given.graph.call_function(_SIZE, (given, axis))
        found.meta["val"] = value.shape[axis]
    else:
        last.append(found)
    return found


_SIZE = _aten.sym_size.int
_REWRITES: Mapping[Any, Callable[[fx.Node], _Change | None]] = {
    _aten.to.dtype: _cast,
    _aten.to.dtype_layout: _cast,
    _aten.to.device: _cast,
    _aten.numpy_T.default: _transpose,
    _aten.dropout.default: _dropout,
    _aten.flatten.using_ints: _reshape,
    _aten.unflatten.int: _reshape,
}
