"""New nodes and constants for a graph that is rewritten in place.

What comes in: the graph, and a node before which others go. What goes out: values with names that are not taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir


def described(value: ir.Value, like: ir.Value, more: int) -> ir.Value:
    """With the dtype of another value, and its shape but for columns more."""
    if like.dtype is not None:
        value.dtype = like.dtype
    if like.shape is not None:
        sizes = list(like.shape)
        sizes[-1] = sizes[-1] + more if isinstance(sizes[-1], int) else sizes[-1]
        value.shape = ir.Shape(sizes)
    return value


class GraphWriter:
    """Puts nodes before a node; constants are made once.

    Args:
        graph: Where to.
        prefix: Of the names of what is written.
    """

    before: ir.Node

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph, self.prefix, self.made = graph, prefix, 0
        self.constants: dict[tuple[str, bytes], ir.Value] = {}
        self.taken = {value.name for node in graph for value in node.outputs}
        self.taken |= {value.name for value in (*graph.inputs, *graph.initializers.values())}

    def __call__(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """What a new node of this kind makes."""
        out = ir.Value(name=self.name())
        self.graph.insert_before(self.before, ir.node(kind, inputs, attributes or None, outputs=[out], name=out.name))
        return out

    def integers(self, *values: int) -> ir.Value:
        """A constant vector."""
        return self._constant(np.array(values, np.int64))

    def number(self, value: float) -> ir.Value:
        """A constant float."""
        return self._constant(np.array(value, np.float32))

    def integer(self, value: int) -> ir.Value:
        """A constant without dimensions."""
        return self._constant(np.array(value, np.int64))

    def _constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self.constants:
            tensor = ir.tensor(array, name=self.name())
            value = ir.Value(
                name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            self.graph.initializers[str(tensor.name)] = self.constants[key] = value
        return self.constants[key]

    def name(self) -> str:
        """One that no value has."""
        while (name := f"{self.prefix}_{self.made}") in self.taken:
            self.made += 1
        self.taken.add(name)
        return name
