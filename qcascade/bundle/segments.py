"""A model cut at kernels: which nodes run before, between and after them, each stage in one onnxruntime session.

What comes in: a checked model and the kernels' nodes that run elsewhere. What goes out: stages in order, each with its
nodes, what it takes from before and what later stages, kernels and the model's outputs need of it. A node is in the
earliest stage in which all that it takes is there; a kernel runs before the first stage that takes what it makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcascade.bundle.manifest import DOMAIN

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


@dataclass(frozen=True, slots=True)
class Stage:
    """Kernels that run first, then nodes that run together."""

    kernels: tuple[str, ...]  # names of their nodes, in order
    nodes: tuple[int, ...]  # places in the model's graph
    takes: tuple[str, ...]  # tensors from before: inputs, or made by earlier stages and kernels
    gives: tuple[str, ...]  # tensors that are needed after


def cut(model: ModelProto, elsewhere: frozenset[str]) -> list[Stage]:
    """The stages of a model whose nodes called `elsewhere` run elsewhere.

    Example:
        >>> from onnx import helper
        >>> nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Neg", ["b"], ["y"])]
        >>> nodes.insert(1, helper.make_node("f", ["a"], ["b"], name="k", domain="qcascade"))
        >>> graph = helper.make_graph(nodes, "g", *([helper.make_tensor_value_info(n, 1, [2])] for n in "xy"))
        >>> [(s.kernels, s.takes, s.gives) for s in cut(helper.make_model(graph), frozenset({"k"}))]
        [((), ('x',), ('a',)), (('k',), ('b',), ('y',))]
    """
    level: dict[str, int] = {value.name: 0 for value in model.graph.input}
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes: list[list[int]] = [[]]
    kernels: list[list[str]] = [[]]
    for place, node in enumerate(model.graph.node):
        outside = node.domain == DOMAIN and node.name in elsewhere
        stage = max((level.get(name, 0) for name in used(node)), default=0) + outside
        while len(nodes) <= stage:
            nodes.append([])
            kernels.append([])
        if outside:
            kernels[stage].append(node.name)
        else:
            nodes[stage].append(place)
        level.update(dict.fromkeys((name for name in node.output if name), stage))
    wanted: dict[str, int] = {}  # tensor -> the last stage whose kernels or nodes need it
    places = {node.name: place for place, node in enumerate(model.graph.node) if node.domain == DOMAIN}
    for stage, inner in enumerate(nodes):
        for place in [places[name] for name in kernels[stage]] + inner:
            for name in used(model.graph.node[place]):
                wanted[name] = max(wanted.get(name, 0), stage)
    for value in model.graph.output:
        wanted[value.name] = len(nodes)
    made = []
    for stage, chosen in enumerate(nodes):
        inside = [model.graph.node[place] for place in chosen]
        own = dict.fromkeys(name for node in inside for name in node.output if name)
        taken = dict.fromkeys(name for node in inside for name in used(node))
        takes = tuple(name for name in taken if name not in own and name not in weights)
        gives = tuple(name for name in own if wanted.get(name, -1) > stage)
        made.append(Stage(tuple(kernels[stage]), tuple(chosen), takes, gives))
    return made


def stage_model(model: ModelProto, stage: Stage, types: Mapping[str, int]) -> ModelProto:
    """A stage as a model of its own.

    Args:
        model: The whole one.
        stage: Of it.
        types: ONNX element type of every tensor that the stage takes.
    """
    import onnx

    nodes = [model.graph.node[place] for place in stage.nodes]
    needed = {name for node in nodes for name in used(node)} | set(stage.gives)
    made = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    made.graph.name = model.graph.name or "stage"
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    for name in stage.takes:
        value = made.graph.input.add(name=name)
        value.type.tensor_type.elem_type = types[name]
    for name in stage.gives:
        made.graph.output.add(name=name)
    functions = {node.op_type for node in nodes if node.domain == DOMAIN}
    made.functions.extend(function for function in model.functions if function.name in functions)
    return made


def used(node: NodeProto) -> Sequence[str]:
    """Names that a node takes, those that graphs in it take from around them included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inner = {name for one in attribute.g.node for name in one.output}
            inner |= {value.name for value in attribute.g.input}
            names += [name for one in attribute.g.node for name in used(one) if name not in inner]
            names += [value.name for value in attribute.g.output if value.name not in inner]
    return names
