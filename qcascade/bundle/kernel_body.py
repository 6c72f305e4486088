"""A kernel as an ONNX function in standard operators, its weights among the inputs.

What comes in: a stand-in of `kernel_nodes` that was called while torch exported the hybrid. What goes out: a function of
domain `qcascade`, the same bytes for equal kernels. The kernel's forward is exported by torch, brought into real arithmetic
(`real_graph`) with its circuits written out (`circuit_body`), and exported again. Attention pooling has a form of its own
(`attention_body`).
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from qcascade.bundle.attention_body import AttentionBody
from qcascade.bundle.kernel_nodes import UNCAPTURED, KernelNode, uncaptured
from qcascade.bundle.manifest import DOMAIN
from qcascade.bundle.onnx_passes import cleaned, translated
from qcascade.bundle.real_graph import RealGraph
from qcascade.capture.export_settings import quick_export
from qcascade.kernels.attention import AmplitudeAttentionPooling


class _Open(nn.Module):
    """A body as a function of its weights too."""

    node: KernelNode
    body: nn.Module

    def __init__(self, node: KernelNode, own: nn.Module | None) -> None:
        super().__init__()
        self.__dict__["node"], self.__dict__["body"] = node, node.body if own is None else own
        self.present = tuple(spec is not None for spec in node.call.inputs)

    def forward(self, inputs: list[Tensor], weights: list[Tensor]) -> Tensor:
        """The kernel's result; of the inputs, those that it was called with."""
        given = iter(inputs)
        arguments = tuple(next(given) if there else None for there in self.present)
        tensors = dict(zip(self.node.names, weights, strict=True))
        found: Tensor = torch.func.functional_call(self.body, tensors, arguments)
        return found


def _own_form(node: KernelNode) -> tuple[AttentionBody | None, dict[str, int]]:
    """A form of the kernel that is real as it is and made for a runtime, if there is one; sizes to export it with.

    Sizes are by symbol; the kernel's call has those of the others.
    """
    kernel, inputs = node.kernel, node.call.inputs
    if type(kernel) is not AmplitudeAttentionPooling or not AttentionBody.applies(kernel) or inputs[0] is None:
        return None, {}
    body, length = AttentionBody.of(kernel), inputs[0][1][1]
    if isinstance(length, int):
        return body, {}
    mask = inputs[1] if len(inputs) > 1 else None
    if mask is not None and any(size not in (1, length) for size in mask[1][1:] if size != kernel.heads):
        return None, {}
    return body, {length[0]: body.telling_length}


def kernel_function(node: KernelNode, name: str) -> ir.Function:
    """The body of a kernel as a function called `name`.

    Raises:
        BundleError: An operator of it has no form in ONNX, or a circuit is too wide.
    """
    inputs, dynamic = [], []
    own, hints = _own_form(node)
    for spec in node.call.inputs:
        if spec is not None:
            dtype, sizes = spec
            inputs.append(torch.zeros([s if isinstance(s, int) else hints.get(*s) for s in sizes], dtype=dtype))
            dynamic.append(tuple(Dim.STATIC if isinstance(s, int) else Dim.AUTO for s in sizes))
    tensors = dict((*node.body.named_parameters(), *node.body.named_buffers()))
    weights = [tensors[n].detach() for n in node.names]
    shapes = (dynamic, [None] * len(weights))
    what = f"kernel {node.path} ({type(node.kernel).__name__})"
    with torch.no_grad():
        program = _captured(_Open(node, own), (inputs, weights), shapes, what)
        if own is None:
            real = RealGraph(program.module(check_guards=False), what)
            program = _captured(real, (inputs, weights), ((dynamic, shapes[1]),), what)
        model = translated(program, what)
    (real if own is None else own).recorder.insert(model)
    cleaned(model)
    graph = model.graph
    common.OutputFixPass()(model)
    for number, value in enumerate((*graph.inputs, *graph.outputs)):
        value.name = f"input_{number}" if number < len(graph.inputs) else "output"
    _renumbered(graph)
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        assert tensor is not None
        constant = ir.node("Constant", [], {"value": ir.tensor(tensor.numpy())}, outputs=[ir.Value(name=value.name)])
        value.replace_all_uses_with(constant.outputs[0])
        graph.initializers.pop(str(value.name))
        graph.insert_before(graph[0], constant)
    return ir.Function(DOMAIN, name, graph=graph, attributes=[])


def _captured(module: nn.Module, call: tuple[Any, ...], shapes: tuple[Any, ...], what: str) -> ExportedProgram:
    """What torch exports of a body; why it does not is said with the kernel's name."""
    try:
        with quick_export():
            return torch.export.export(module, call, dynamic_shapes=shapes, strict=False)
    except UNCAPTURED as error:
        raise uncaptured(what, error) from error


def _renumbered(graph: Any) -> None:
    """Names of values and nodes by their order."""
    for number, value in enumerate(list(graph.initializers.values())):
        graph.initializers.pop(value.name)
        value.name = f"constant_{number}"
        graph.initializers[value.name] = value
    for number, node in enumerate(graph):
        node.name = f"{node.op_type}_{number}"
        for place, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"value_{number}_{place}"
