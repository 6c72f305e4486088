"""The backend of `torch.compile(model, backend="qcascade")`: a plan for every graph that dynamo hands over.

What comes in: dynamo's graph and its example inputs, parameters among them. What goes out: the graph compiled by another
backend ("inductor" unless told otherwise), unchanged, so that it trains as before; beside it one line on standard error
and a `GraphReport`. Nothing is offloaded here: dynamo compiles again for every new shape and mode, and kernels made in a
graph would belong to no module, so that no optimizer and no state_dict would hold their weights. To offload, compile in the
other order: `torch.compile(qcascade.compile(model))`, whose graph has no breaks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import tracing
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from qcascade.capture import capture
from qcascade.compiler import make_request, plan_captured
from qcascade.errors import CaptureError, PlanError
from qcascade.plan import PartitionPlan, Region

_PLANNED = ("target", "objective", "limits", "kernels", "include", "exclude", "seed", "mitigation")
_OWN = ("backend", "quiet")


@dataclass(frozen=True, slots=True)
class GraphReport:
    """What the backend found in one graph."""

    number: int  # of the graph, in the order of compilation
    nodes: int  # operations in dynamo's graph
    plan: PartitionPlan | None  # None: the graph could not be planned
    failure: str | None = None  # why

    @property
    def regions(self) -> tuple[Region, ...]:
        """Every region with its verdict and reason; none where the graph could not be planned."""
        return () if self.plan is None else self.plan.regions

    def __str__(self) -> str:
        start = f"qcascade: graph {self.number} ({self.nodes} operations):"
        if self.plan is None:
            return f"{start} not planned: {self.failure}"
        summary = self.plan.summary
        share = 100 * (summary.flops_offloaded or 0) / summary.flops_total if summary.flops_total else 0
        return (
            f"{start} {summary.offloaded} of {summary.regions} regions could be offloaded ({share:.0f} % of its FLOPs); "
            "it runs unchanged, qcascade.compile(model) offloads"
        )


_reports: list[GraphReport] = []


def reports() -> tuple[GraphReport, ...]:
    """A report for every graph compiled in this process, oldest first.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> compiled = torch.compile(model, backend=qcascade_backend, options={"backend": "eager", "quiet": True})
        >>> _ = compiled(torch.randn(3, 8))
        >>> [region.name for region in reports()[-1].regions]
        ['2', '0']
    """
    return tuple(_reports)


def clear() -> None:
    """Forget all reports."""
    _reports.clear()


def qcascade_backend(
    graph: fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Plan dynamo's graph, report, and compile it unchanged.

    Args:
        graph: Dynamo's graph; parameters are among its inputs.
        example_inputs: Its inputs.
        options: As `qcascade.compile` takes them (target, objective, limits, kernels, include, exclude, seed, mitigation);
            `backend`, the name of the backend that compiles the graph ("inductor"); `quiet`, to print no line.

    Raises:
        PlanError: An option is unknown or has no such value.
        TargetError: The target is unknown.
    """
    given = dict(options or {})
    if unknown := sorted(set(given) - {*_PLANNED, *_OWN}):
        hint = (
            " Graphs are not offloaded here: use torch.compile(qcascade.compile(model))."
            if "offload" in unknown
            else ""
        )
        raise PlanError(
            f"options has no {', '.join(unknown)}; the qcascade backend takes {', '.join((*_PLANNED, *_OWN))}.{hint}"
        )
    request = make_request(**{name: value for name, value in given.items() if name in _PLANNED})
    operations = sum(n.op not in ("placeholder", "output", "get_attr") for n in graph.graph.nodes)
    module, inputs = _with_parameters(graph, example_inputs)
    try:
        with tracing(None), disable_proxy_modes_tracing(), torch.compiler.set_stance("force_eager"):
            plan = plan_captured(capture(module, inputs), request)
        report = GraphReport(len(_reports), operations, replace(plan, model=f"graph {len(_reports)}"))
    except CaptureError as error:
        report = GraphReport(len(_reports), operations, None, str(error))
    _reports.append(report)
    if not given.get("quiet", False):
        print(report, file=sys.stderr)
    compiler: Any = torch._dynamo.lookup_backend(given.get("backend", "inductor"))
    compiled: Callable[..., Any] = compiler(graph, example_inputs)
    return compiled


def _with_parameters(graph: fx.GraphModule, example_inputs: Sequence[Any]) -> tuple[fx.GraphModule, tuple[Any, ...]]:
    """A copy of the graph that owns its parameters, under the names they have in the model, and its other inputs."""
    root, copied = nn.Module(), fx.Graph()
    root.__dict__.update({k: dict(graph.__dict__[k]) for k in ("_parameters", "_buffers", "_modules")})
    values = dict(zip([n for n in graph.graph.nodes if n.op == "placeholder"], example_inputs, strict=True))
    mapping: dict[fx.Node, fx.Node] = {}
    taken: set[str] = set()
    inputs = []
    for node in graph.graph.nodes:
        value = values.get(node)
        if isinstance(value, nn.Parameter):
            path = _path(node, taken)
            taken.add(path)
            _register(root, path, nn.Parameter(value.detach(), requires_grad=value.requires_grad))
            mapping[node] = copied.get_attr(path)
            continue
        mapping[node] = copied.node_copy(node, mapping.__getitem__)
        if stack := node.meta.get("nn_module_stack"):
            named = {k: (re.sub(r"^L\['\w+'\]\.?", "", str(path)), kind) for k, (path, kind) in stack.items()}
            mapping[node].meta["nn_module_stack"] = named
        if node in values:
            inputs.append(value.detach() if isinstance(value, Tensor) else value)
    return fx.GraphModule(root, copied, "DynamoGraph"), tuple(inputs)


def _register(root: nn.Module, path: str, parameter: nn.Parameter) -> None:
    owner, (*parents, leaf) = root, path.split(".")
    for name in parents:
        if name not in owner._modules:
            owner.add_module(name, nn.Module())
        owner = owner.get_submodule(name)
    owner.register_parameter(leaf, parameter)


def _path(holder: fx.Node, taken: Collection[str]) -> str:
    """A parameter's dotted path in the model, read off dynamo's source, e.g. L['self']._modules['0']._parameters['bias']."""
    argument = holder.meta.get("grapharg")
    source = "" if argument is None else str(argument.source.name)
    parts = re.findall(r"_(?:modules|parameters)\['([^']+)'\]|\.([A-Za-z]\w*)", source)
    path = ".".join(a or b for a, b in parts) or str(holder.name)
    return path if path not in taken else str(holder.name)
