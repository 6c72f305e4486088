"""Classical costs: FLOPs by torch's own counter, bytes moved, and roofline seconds.

On fake tensors (nothing is computed).

An operator's FLOPs come from torch.utils.flop_counter's formulas (a multiply-add is two; element-wise operators and
lookups count none), four times as many for complex operands. Its bytes are its inputs' and outputs'; views move none.
Its seconds are the roofline's (Williams et al. 2009), summed over operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from qcascade.cost_models.likeness import Layout, frozen, layout
from qcascade.cost_models.machine import Machine


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


_CPU_ATTENTION: dict[Any, Callable[..., int]] = {  # torch 2.13 counts only the accelerators' fused attention
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@dataclass(frozen=True, slots=True)
class OperationCosts:
    """FLOPs, bytes read and written, and predicted seconds."""

    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: OperationCosts) -> OperationCosts:
        return OperationCosts(self.flops + other.flops, self.bytes + other.bytes, self.seconds + other.seconds)


class _Counter(TorchDispatchMode):
    """Adds up what every dispatched operator costs."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.machine, self.total = machine, OperationCosts()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not func.is_view and func.namespace != "prim" and func is not torch.ops.aten.detach.default:
            self.total = self.total + self._operator(func, args, kwargs, out)
        return out

    def _operator(self, func: Any, args: Any, kwargs: Any, out: Any) -> OperationCosts:
        inputs = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outputs = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
        moved = sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        formula = flop_registry.get(func.overloadpacket) or _CPU_ATTENTION.get(func.overloadpacket)
        if func.overloadpacket is torch.ops.aten.embedding:
            moved = 2 * sum(t.numel() * t.element_size() for t in outputs)  # of the table only the rows are read
        if formula is None:
            return OperationCosts(0, moved, self.machine.seconds(0, moved, 1))
        if func.namespace == "qcascade":  # circuits: counted and timed by the simulator's own rate
            flops = int(formula(*args, **kwargs, out_val=out))
            return OperationCosts(flops, moved, self.machine.circuit_seconds(flops))
        flops = int(formula(*args, **kwargs, out_val=out)) * (4 if any(t.is_complex() for t in inputs) else 1)
        factors = [t for t in inputs if t.dim() > 1 and (t.is_floating_point() or t.is_complex())][:2]
        size = min((s for t in factors for s in t.shape[-2:]), default=1)
        return OperationCosts(flops, moved, self.machine.seconds(flops, moved, size))


def count(work: Callable[[], Any], machine: Machine) -> OperationCosts:
    """What a piece of work on fake tensors costs.

    Example:
        >>> from qcascade.cost_models.machine import Machine
        >>> machine = Machine("m", 1, (1,), (1e9,), 1e9, 0.0, 1e9)
        >>> with FakeTensorMode():
        ...     count(lambda: torch.ones(2, 3) @ torch.ones(3, 5), machine).flops
        60
    """
    counter = _Counter(machine)
    with counter:
        work()
    return counter.total


def training_costs(work: Callable[[], Tensor], machine: Machine) -> tuple[OperationCosts, OperationCosts]:
    """Costs of a forward pass and of its backward pass."""
    results: list[Tensor] = []
    forward = count(lambda: results.append(work()), machine)
    backward = count(lambda: results[0].sum().backward(), machine) if results[0].requires_grad else OperationCosts()
    return forward, backward


_MOST_KNOWN = 50_000  # operators remembered for a machine


@lru_cache(maxsize=4)
def _known_operators(machine: Machine) -> dict[Any, tuple[Any, OperationCosts]]:
    """Results (layouts in place of tensors) and costs of operators that were run once, by operator and inputs."""
    return {}


class NodeCosts(fx.Interpreter):
    """Costs of every node of a graph, for inputs of any shapes: the graph runs on fake tensors.

    Deep models repeat themselves: values are kept as layouts, and an operator that was run on like inputs (same
    layouts, same numbers) is not run again, in this graph or in a later one. What does not depend on the graph's
    inputs (attributes, numbers among the arguments) is read once for all runs.

    Example:
        >>> from qcascade.cost_models.machine import Machine
        >>> costs = NodeCosts(fx.symbolic_trace(torch.nn.Linear(3, 5)), Machine("m", 1, (1,), (1e9,), 1e9, 0.0, 1e9))
        >>> [sum(c.flops for c in costs([torch.ones(n, 3)]).values()) for n in (2, 4)]
        [60, 120]
    """

    def __init__(self, module: fx.GraphModule, machine: Machine) -> None:
        super().__init__(module, garbage_collect_values=False)  # layouts are small
        self.mode, self.machine = FakeTensorMode(allow_non_fake_inputs=True), machine
        self.costs: dict[fx.Node, OperationCosts] = {}
        self.known = _known_operators(machine)
        if len(self.known) > _MOST_KNOWN:
            self.known.clear()
        self.repeats = not any(_changes_layout(n) for n in module.graph.nodes)
        self._tensors: dict[Layout, Tensor] = {}
        self._attributes: dict[fx.Node, Any] = {}
        self._forms: dict[fx.Node, tuple[Any, list[fx.Node]] | None] = {}

    @torch.no_grad()
    def __call__(self, inputs: Sequence[Any]) -> dict[fx.Node, OperationCosts]:
        """Costs by node, for inputs of these shapes; the values of tensors do not matter."""
        with self.mode:
            fake = [self.mode.from_tensor(x, static_shapes=True) if isinstance(x, Tensor) else x for x in inputs]
            self.costs, self.env, self.args_iter = {}, {}, iter(fake)
            for node in self.graph.nodes:
                self.env[node] = self.run_node(node)
        return self.costs

    def run_node(self, n: fx.Node) -> Any:
        """The result of a node, its tensors as layouts; notes its costs."""
        self.costs[n] = OperationCosts()
        if n.op == "get_attr":
            if n not in self._attributes:
                value = self.fetch_attr(str(n.target))
                self._attributes[n] = self._lean(value) if isinstance(value, Tensor) else value
            return self._attributes[n]
        key = self._key(n) if self.repeats and n.op == "call_function" else None
        if key is not None and key in self.known:
            result, self.costs[n] = self.known[key]
            return result
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        counter = _Counter(self.machine)
        with counter:
            result = getattr(self, n.op)(n.target, args, kwargs)
        if n.op == "output":
            return result
        self.costs[n] = counter.total
        result = pytree.tree_map(self._lean, result)
        if key is not None and not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            self.known[key] = result, counter.total
        return result

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        """A node's arguments, layouts made tensors again."""
        given = super().fetch_args_kwargs_from_env(n)
        return pytree.tree_map(self._full, given, is_leaf=lambda value: isinstance(value, Layout))

    def _lean(self, value: Any) -> Any:
        """A layout in place of a tensor, where it says all that matters here; else a fake tensor."""
        if not isinstance(value, Tensor):
            return value
        plain = value.layout is torch.strided and getattr(value, "constant", None) is None
        if self.repeats and plain and all(isinstance(size, int) for size in value.shape):
            return layout(value)
        return value if isinstance(value, FakeTensor) else self.mode.from_tensor(value, static_shapes=True)

    def _full(self, value: Any) -> Any:
        """A tensor again."""
        if not isinstance(value, Layout):
            return value
        if value not in self._tensors:
            self._tensors[value] = value.empty()
        return self._tensors[value]

    def _key(self, node: fx.Node) -> Any:
        """What a node's result and costs depend on; None where that cannot be told."""
        if node not in self._forms:
            self._forms[node] = _form(node)
        form = self._forms[node]
        if form is None:
            return None
        fixed, sources = form
        try:
            return fixed, tuple([self._read(self.env[source]) for source in sources])
        except TypeError:
            return None

    def _read(self, value: Any) -> Any:
        if type(value) is Layout:
            return value
        if isinstance(value, Tensor):
            raise TypeError("a tensor of which more counts than its layout")
        return frozen(value, self._read)


def _form(node: fx.Node) -> tuple[Any, list[fx.Node]] | None:
    """A call without its inputs' values, and the nodes they come from in order; None where they do not say it all."""
    tags = getattr(node.target, "tags", ())
    if torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags:
        return None
    sources: list[fx.Node] = []

    def read(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            raise TypeError("a tensor of which more counts than its layout")
        sources.append(leaf)
        return _INPUT

    try:
        return (node.target, frozen(node.args, read), frozen(node.kwargs, read)), sources
    except TypeError:
        return None


_INPUT = object()  # in the place of a node


def _changes_layout(node: fx.Node) -> bool:
    """Whether a node changes the shape or strides of a tensor in place."""
    return torch.Tag.inplace_view in getattr(node.target, "tags", ())


class _TrainableAttributes(fx.Interpreter):
    """Runs a region on fake tensors, its weights taking gradients."""

    def __init__(self, module: fx.GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module)
        self.mode = mode
        self.parameters = 0

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        if not isinstance(value, Tensor):
            return value
        fake = self.mode.from_tensor(value, static_shapes=True)
        if not value.is_floating_point():
            return fake
        self.parameters += value.numel()
        return fake.requires_grad_()


def region_training_costs(module: fx.GraphModule, inputs: Sequence[Tensor], machine: Machine) -> OperationCosts:
    """Costs of a region's forward and backward pass on inputs of these shapes, and its share of the optimiser's step."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.enable_grad():
        fake: list[Tensor] = [mode.from_tensor(t, static_shapes=True) for t in inputs]
        fake = [t.requires_grad_() if t.is_floating_point() else t for t in fake]
        interpreter = _TrainableAttributes(module, mode)
        forward, backward = training_costs(lambda: interpreter.run(*fake), machine)
    return forward + backward + optimizer_costs(interpreter.parameters, machine)


def optimizer_costs(parameters: int, machine: Machine) -> OperationCosts:
    """AdamW's step: parameter, gradient and two moments read, all but the gradient written, four bytes each."""
    moved = 7 * 4 * parameters
    return OperationCosts(0, moved, moved / machine.bytes_per_second)


def complexity(lengths: Sequence[int], flops: Sequence[int]) -> str | None:
    """Growth in sequence length n from three lengths: the highest power of n with a share of the FLOPs.

    The quadratic through the three points is exact for attention and projections; a share below 10⁻⁶ counts as none.

    Example:
        >>> complexity((16, 32, 64), (16 + 16**2, 32 + 32**2, 64 + 64**2))
        'O(n²)'
    """
    (a, b, c), (fa, fb, fc) = lengths, flops
    if fc == 0:
        return None
    slope = (fb - fa) / (b - a)
    square = ((fc - fb) / (c - b) - slope) / (c - a)
    linear = slope - square * (a + b)
    if abs(square) * c * c > 1e-6 * fc:
        return "O(n²)"
    return "O(n)" if abs(linear) * c > 1e-6 * fc else "O(1)"
