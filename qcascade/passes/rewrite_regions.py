"""Rewrite chosen regions into kernels: the only pass that changes a graph.

What comes in: the captured model, the matches of both its graphs and a kernel for each chosen one. What goes out: a
`HybridModule`. Each kernel is called where the region's output was, in the evaluation and in the training graph; nodes
that only the region used go, and so do parameters that nothing uses any more. Parameters that the original never used
stay.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from qcascade.capture.graph import CapturedModel
from qcascade.capture.runnable import Runnable, inner_runnable, output_structure, wrapped
from qcascade.containers import CONTAINERS, Container, container_name
from qcascade.hybrid import HybridModule
from qcascade.interface import Interface
from qcascade.kernels.base import QuantumKernel
from qcascade.passes.base import Match
from qcascade.passes.extract_region import extract_region
from qcascade.plan import PartitionPlan
from qcascade.targets import Target

_aten = torch.ops.aten


@dataclass(frozen=True, eq=False, slots=True)
class Rewritten:
    """A module tree with kernels in it, the graphs that run it, and how they are called."""

    tree: nn.Module
    evaluation: Runnable
    training: Runnable | None
    interface: Interface
    kernels: Mapping[str, str]  # region name -> path of its kernel in the tree
    constants: Mapping[str, Any]
    replaced: Mapping[str, fx.GraphModule]


def rewrite_regions(
    captured: CapturedModel,
    matches: Sequence[Match],
    training: Sequence[Match],
    kernels: Mapping[str, QuantumKernel],
    plan: PartitionPlan,
    target: Target,
) -> HybridModule:
    """The hybrid of a captured model; `captured` is used up."""
    made = rewrite_graphs(captured, matches, training, kernels)
    return HybridModule(
        made.tree,
        made.evaluation,
        made.training,
        made.interface,
        made.kernels,
        plan,
        constants=made.constants,
        replaced=made.replaced,
        target=target,
        config=getattr(captured.model, "config", None),
    )


def rewrite_graphs(
    captured: CapturedModel, matches: Sequence[Match], training: Sequence[Match], kernels: Mapping[str, QuantumKernel]
) -> Rewritten:
    """The rewritten tree and graphs of a captured model; `captured` is used up."""
    chosen = [m for m in matches if m.name in kernels]
    replaced = {
        m.name: extract_region(captured.eval_graph, m, as_kernel=True) for m in chosen if not kernels[m.name].adds
    }
    before = _used_tensors(captured.model, (captured.eval_graph, captured.train_graph))
    places = _places(captured.model, chosen)
    structure = output_structure(captured.eval_graph.graph)
    trained = structure if captured.train_graph is None else output_structure(captured.train_graph.graph)
    _rewrite(captured.eval_graph.graph, chosen, kernels, places)
    if captured.train_graph is not None:
        found = {m.name: m for m in training}
        _rewrite(captured.train_graph.graph, [found[m.name] for m in chosen], kernels, places)
    tensors = dict(_named_tensors(captured.model))
    for match in chosen:
        if kernels[match.name].adds:
            for reference in match.weights.values():
                if isinstance(weight := tensors[reference.path], nn.Parameter):  # buffers are frozen as they are
                    weight.requires_grad_(False)
    dead = before - _used_tensors(captured.model, (captured.eval_graph, captured.train_graph))
    tree = _skeleton(captured.model, {})
    _forget(tree, dead)
    _place(tree, {places[name]: kernel for name, kernel in kernels.items()})
    constants: dict[str, Any] = {}
    for prefix, module in (("_eval", captured.eval_graph), ("_train", captured.train_graph)):
        if module is not None:
            _lift_constants(prefix, module, tree, constants)
    tree.training = captured.model.training
    return Rewritten(
        tree,
        Runnable(captured.eval_graph.graph, structure),
        None if captured.train_graph is None else Runnable(captured.train_graph.graph, trained),
        Interface(
            inspect.signature(captured.model.forward),
            captured.inputs,
            (captured.example_args, captured.example_kwargs),
            fills_mask=_of_transformers(getattr(captured.model, "config", None)),
        ),
        {match.name: places[match.name] for match in chosen},
        constants,
        replaced,
    )


def _of_transformers(config: Any) -> bool:
    """Whether a model's config is one of Hugging Face's, so that its attention_mask is one of the tokens that count."""
    return any(kind.__module__.partition(".")[0] == "transformers" for kind in type(config).__mro__)


def extract_weights(model: nn.Module, match: Match, *, copied: bool = True) -> dict[str, Tensor]:
    """The weights of a region under their canonical names, in nn.Linear's layout, without gradient: copies, or views where possible."""
    weights = {}
    for name, reference in match.weights.items():
        owner, _, leaf = reference.path.rpartition(".")
        value: Tensor = getattr(model.get_submodule(owner), leaf).detach()
        if reference.transposed:
            value = value.T
        if reference.rows is not None:
            weights[name] = value[list(reference.rows)]
        else:
            weights[name] = value.clone() if copied else value
    return weights


def _rewrite(
    graph: fx.Graph, chosen: Sequence[Match], kernels: Mapping[str, QuantumKernel], places: Mapping[str, str]
) -> None:
    instead: dict[fx.Node, fx.Node] = {}  # a region's output may be another region's input
    for match in chosen:
        inputs = [None if n is None else instead.get(n, n) for n in match.inputs]
        with graph.inserting_after(match.output):
            call = result = graph.create_node("call_module", places[match.name])
        call.meta = {k: v for k, v in match.output.meta.items() if k in ("val", "nn_module_stack")}
        if match.sequence_first:
            with graph.inserting_after(call):
                result = graph.call_function(_aten.transpose.int, (call, 0, 1))
        match.output.replace_all_uses_with(result)
        instead[match.output] = result
        if kernels[match.name].adds:
            call.args = (inputs[0], match.output)
            continue
        with graph.inserting_before(call):
            if match.mask_excludes and inputs[1] is not None:
                inputs[1] = graph.call_function(_aten.logical_not.default, (inputs[1],))
            if match.sequence_first:
                inputs[0] = graph.call_function(_aten.transpose.int, (inputs[0], 0, 1))
        call.args = tuple(inputs)
        _prune(graph, match.nodes)


def _prune(graph: fx.Graph, nodes: Sequence[fx.Node]) -> None:
    """Erase the region's nodes, and then what only they used; in-place operations on anything else stay."""
    pending, erased, inside = deque(reversed(nodes)), set[fx.Node](), set(nodes)
    while pending:
        node = pending.popleft()
        schema = getattr(node.target, "_schema", None)
        if node in erased or node.users or node.op in ("placeholder", "output"):
            continue
        if schema and schema.is_mutable and not (node in inside and node.args[0] in inside):
            continue
        sources = node.all_input_nodes
        graph.erase_node(node)
        erased.add(node)
        pending.extend(sources)


def _used_tensors(model: nn.Module, graphs: Iterable[fx.GraphModule | None]) -> set[int]:
    """Identities of the model's parameters and buffers that a graph reads."""
    tensors = dict(_named_tensors(model))
    paths = {str(n.target) for g in graphs if g is not None for n in g.graph.nodes if n.op == "get_attr"}
    return {id(tensors[path]) for path in paths if path in tensors}


def _named_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _places(model: nn.Module, chosen: Sequence[Match]) -> dict[str, str]:
    """Where each kernel goes in the tree: `quantum` below the module that owned the region."""
    places: dict[str, str] = {}
    taken = set[str]()
    for match in chosen:
        owner = model.get_submodule(match.module)
        stem = f"{match.module}.quantum" if match.module else "quantum"
        place, number = stem, 1
        while place in taken or hasattr(owner, place.rpartition(".")[2]):
            number += 1
            place = f"{stem}_{number}"
        places[match.name] = place
        taken.add(place)
    return places


def _skeleton(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """The tree with the same tensors; childless torch.nn modules keep their class, others only hold their parts."""
    if id(module) in done:
        return done[id(module)]
    leaf = type(module).__module__.startswith("torch.nn.modules") and not module._modules
    kept = module if leaf else CONTAINERS[container_name(module)]()
    done[id(module)] = kept
    if not leaf:
        kept.training = module.training
        kept._parameters.update(module._parameters)
        kept._buffers.update(module._buffers)
        kept._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
        kept._modules.update({n: c if c is None else _skeleton(c, done) for n, c in module._modules.items()})
    return kept


def _forget(tree: nn.Module, dead: set[int]) -> None:
    """Drop tensors by identity, and then modules that hold nothing but did."""
    for name, module in list(tree.named_modules()):
        gone = [n for n, p in module._parameters.items() if id(p) in dead]
        for parameter in gone:
            del module._parameters[parameter]
        if (
            name
            and gone
            and not any(p is not None for p in module._parameters.values())
            and not isinstance(module, Container)
        ):
            parent = tree.get_submodule(name.rpartition(".")[0])
            parent._modules[name.rpartition(".")[2]] = Container()


def _place(tree: nn.Module, kernels: Mapping[str, QuantumKernel]) -> None:
    for path, kernel in kernels.items():
        parent, _, name = path.rpartition(".")
        tree.get_submodule(parent)._modules[name] = kernel


def _lift_constants(prefix: str, module: fx.GraphModule, tree: nn.Module, constants: dict[str, Any]) -> None:
    """Constants of a graph become buffers outside state_dict.

    Its inner graphs (of no_grad or autocast blocks) come along.
    """
    known, inner = {name for name, _ in _named_tensors(tree)}, set(wrapped(module.graph))
    for node in module.graph.nodes:
        if node.op != "get_attr" or str(node.target) in known:
            continue
        value: Any = module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        name = f"{prefix}_{str(node.target).replace('.', '_')}"
        if isinstance(value, Tensor):
            tree._buffers[name] = value.detach()
            tree._non_persistent_buffers_set.add(name)
        else:
            constants[name] = inner_runnable(value) if node.target in inner else value
        node.target = name
