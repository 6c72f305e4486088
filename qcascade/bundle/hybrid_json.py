"""A hybrid as `graph.json`, and back: everything but the values of its tensors, which lie in the weights file.

What comes in: a hybrid. What goes out: one JSON document of its module tree (`tree_json`), its graphs in evaluation and
training mode (`graph_json`), how it is called and what it returns (`interface_json`), its kernels, plan, target and
Hugging Face config. The same hybrid gives the same bytes, and what is read from them gives them again.

What does not survive: the regions that kernels replaced, so that what comes back cannot be distilled; the executor in use;
hooks; attributes of the model's own classes, whose modules come back as containers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import JsonValue, StringConstraints, ValidationError
from torch import Tensor, nn

from qcascade.bundle.config_json import config_document, config_of
from qcascade.bundle.graph_json import GraphDocument, graph_document, graph_of
from qcascade.bundle.graph_part import Part
from qcascade.bundle.interface_json import (
    InterfaceDocument,
    Size,
    interface_document,
    interface_of,
    output_json,
    output_of,
)
from qcascade.bundle.plan_json import plan_of
from qcascade.bundle.strict_json import read_json, write_json
from qcascade.bundle.tree_json import ModuleDocument, tree_document, tree_of
from qcascade.bundle.weights import StoredTensors, stored_tensors
from qcascade.capture.runnable import Runnable
from qcascade.errors import BundleError, TargetError
from qcascade.hybrid import HybridModule
from qcascade.kernels import QuantumKernel
from qcascade.targets import Target

FILE = "graph.json"
VERSION: Literal[1] = 1
MAX_BYTES = 32 << 20  # thousands of layers


Dimension = Annotated[str, StringConstraints(pattern=r"^d[0-9]{1,4}$")]  # a free size


class RunnableDocument(Part):
    """A graph and how its results make up the output; null where it returns them as they are."""

    graph: GraphDocument
    output: dict[Literal["structure"], JsonValue] | None
    dimensions: tuple[tuple[Size | Dimension, ...] | None, ...]  # captured shape of every argument before the device


class HybridDocument(Part):
    """A hybrid without its tensors."""

    version: Literal[1]
    modules: tuple[ModuleDocument, ...]
    evaluation: RunnableDocument
    training: RunnableDocument | None  # null where training mode could not be captured
    interface: InterfaceDocument
    kernels: dict[str, str]  # region -> path of its kernel
    plan: dict[str, JsonValue]
    target: dict[str, JsonValue]
    config: dict[str, JsonValue] | None = None  # of a Hugging Face model


def hybrid_json(hybrid: HybridModule, note: Callable[[str], None] = lambda text: None) -> bytes:
    """The content of `graph.json`.

    Args:
        hybrid: Any, captured by torch.export.
        note: Told of what will come back as something else, in a sentence each.

    Raises:
        BundleError: The hybrid holds what a bundle has no form for.

    Example:
        >>> import torch, qcascade
        >>> hybrid = qcascade.compile(torch.nn.Linear(8, 2), (torch.zeros(3, 8),), kernels=["amplitude_adapter"])
        >>> again = hybrid_of(hybrid_json(hybrid), stored_tensors(hybrid).tensors)
        >>> hybrid_json(again) == hybrid_json(hybrid)
        True
    """
    state = hybrid._state
    if state.evaluation is None:
        raise BundleError(f"{hybrid.plan.model} was captured module by module and has no graph to write.")
    constants = {name: value for name, value in vars(state.root).items() if isinstance(value, nn.Module)}
    config, left_out = config_document(getattr(hybrid, "config", None))
    if left_out:
        note(left_out)
    document = HybridDocument(
        version=VERSION,
        modules=tree_document(hybrid, _names(hybrid, stored_tensors(hybrid))),
        evaluation=_runnable_document(state.evaluation, constants, note),
        training=None if state.training is None else _runnable_document(state.training, constants, note),
        interface=interface_document(state.interface),
        kernels=dict(state.kernels),
        plan=hybrid.plan.to_dict(),
        target=json.loads(state.target.to_json()),
        config=config,
    )
    return write_json(document.model_dump(mode="json", exclude_defaults=True), indent=None)


def hybrid_of(content: bytes, tensors: Mapping[str, Tensor]) -> HybridModule:
    """The hybrid of a document: trainable, nothing executed but its construction.

    Args:
        content: Of `graph.json`.
        tensors: Of the weights file, by name. The hybrid takes them as they are, without copying.

    Raises:
        BundleError: The content is no hybrid that a bundle may hold, or does not fit the tensors.
    """
    document = read_document(content)
    tree = tree_of(document.modules, tensors)
    kernels = _kernels(tree, document.kernels)
    constants: dict[str, Any] = {}
    evaluation = _runnable_of(document.evaluation, tree, kernels, constants)
    training = None if document.training is None else _runnable_of(document.training, tree, kernels, constants)
    interface = interface_of(document.interface)
    taken = interface.structure.num_leaves + 1  # and the device
    for runnable in (evaluation, training):
        if runnable is not None and len(runnable.arguments) != taken:
            raise BundleError(
                f"graph.json: a graph takes {len(runnable.arguments)} arguments, and the example has {taken}."
            )
    try:
        target = Target.from_json(json.dumps(document.target))
    except TargetError as error:
        raise BundleError(f"graph.json: {error}") from error
    modes = {path: part.training for path, part in tree.named_modules(remove_duplicate=False)}
    hybrid = HybridModule(
        tree,
        evaluation,
        training,
        interface,
        document.kernels,
        plan_of(document.plan),
        constants=constants,
        replaced={},
        target=target,
        config=config_of(document.config),
    )
    for path, part in hybrid.named_modules(remove_duplicate=False):
        part.training = modes[path]
    return hybrid


def read_document(content: bytes) -> HybridDocument:
    """The checked document.

    Raises:
        BundleError: It is none, or of another version.
    """
    if len(content) > MAX_BYTES:
        raise BundleError(f"{FILE} has {len(content)} bytes; at most {MAX_BYTES} are read.")
    value = read_json(content, FILE)
    if isinstance(value, dict) and value.get("version") != VERSION:
        raise BundleError(
            f"{FILE} has version {str(value.get('version'))[:20]}; this QCascade reads {VERSION}. Install a newer one."
        )
    try:
        return HybridDocument.model_validate_json(content, strict=True)
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(str(part)[:60] for part in first["loc"][:8]) or "the document"
        raise BundleError(f"{FILE} is not valid: {place}: {first['msg'][:200]}.") from error


def _names(hybrid: HybridModule, stored: StoredTensors) -> dict[int, str]:
    """Names in the weights file by identity."""
    named = (*hybrid.named_parameters(remove_duplicate=False), *hybrid.named_buffers(remove_duplicate=False))
    return {id(tensor): stored.aliases.get(name, name) for name, tensor in named}


def _runnable_document(
    runnable: Runnable, constants: Mapping[str, Any], note: Callable[[str], None]
) -> RunnableDocument:
    output = None if runnable.output is None else {"structure": output_json(runnable.output, note)}
    return RunnableDocument.model_construct(
        graph=graph_document(runnable.graph, constants), output=output, dimensions=runnable.dimensions
    )


def _kernels(tree: nn.Module, places: Mapping[str, str]) -> dict[str, type[nn.Module]]:
    parts = {path: part for path, part in tree.named_modules(remove_duplicate=False) if isinstance(part, QuantumKernel)}
    if not set(places.values()) <= set(parts):
        raise BundleError("graph.json: a region names a kernel that is not there.")
    return {path: type(part) for path, part in parts.items()}


def _runnable_of(
    document: RunnableDocument, tree: nn.Module, kernels: Mapping[str, type[nn.Module]], constants: dict[str, Any]
) -> Runnable:
    tensors = {name for name, _ in tree.named_parameters(remove_duplicate=False)}
    tensors |= {name for name, _ in tree.named_buffers(remove_duplicate=False)}
    graph, inner = graph_of(document.graph, tensors.__contains__, kernels)
    for name in inner:
        if name in constants or name in tensors or not name.startswith(("_eval_", "_train_")):
            raise BundleError(f"graph.json: an inner graph cannot be called {name[:80]!r}.")
    constants.update(inner)
    output = None if not document.output else output_of(document.output["structure"])
    result = next(reversed(graph.nodes)).args[0]
    if output is not None and not (isinstance(result, (tuple, list)) and len(result) == output.num_leaves):
        raise BundleError(f"graph.json: a graph's results are not the {output.num_leaves} that make up the output.")
    made = Runnable.of(graph, output, document.dimensions)
    if len(document.dimensions) != len(made.arguments) - 1:
        raise BundleError("graph.json: a graph states other dimensions than it has arguments.")
    return made
