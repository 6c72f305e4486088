"""`export`: a hybrid into a bundle, which runs wherever ONNX Runtime does and holds no code.

What comes in: a hybrid. What goes out: one zip or directory with the model in ONNX, every weight once, the circuits, the
hybrid's graphs, the report and a manifest (`bundle.manifest`). It is written whole or not at all, the same bytes for the
same hybrid, and weights go from their storage to the file one by one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qcascade.bundle.archive import Content, write_bundle
from qcascade.bundle.circuit_files import circuit_files
from qcascade.bundle.hybrid_json import hybrid_json
from qcascade.bundle.kernel_nodes import DERIVED, Evaluation
from qcascade.bundle.manifest import GRAPH, MODEL, REPORT, WEIGHTS, CircuitEntry, KernelEntry, Manifest, TargetEntry
from qcascade.bundle.onnx_model import ExportedKernel, cast_at_once, check_dtypes, onnx_model
from qcascade.bundle.weights import layout, stored_tensors, write_weights
from qcascade.capture.recurrent import RECURRENT
from qcascade.errors import BundleError
from qcascade.hybrid import HybridModule
from qcascade.targets import Target


def export(hybrid: HybridModule, path: str | os.PathLike[str], *, example_inputs: Any = None) -> Path:
    """Write a hybrid as a bundle: ONNX, circuits, weights and report, in one file or a directory.

    The model computes what the hybrid does in evaluation mode, circuits simulated exactly, whatever executor is in use.

    Args:
        hybrid: What to export; it is left untouched.
        path: Where to: a zip where it ends in .qcb or .zip, else a directory. An older bundle there is replaced.
        example_inputs: As for `qcascade.compile`; needed only where the sizes of a call cannot be made up.

    Returns:
        The path.

    Raises:
        BundleError: The hybrid cannot be written as ONNX (with the operator or kernel that is the reason), or the bundle
            not be written there. Nothing is left behind.

    Example:
        >>> import tempfile, torch, qcascade
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> hybrid = qcascade.compile(model, kernels={"reuploading_head": {"qubits": 2, "offsets": 1}})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = sorted(p.name for p in export(hybrid, f"{folder}/tiny").iterdir() if p.is_file())
        >>> found[:3]
        ['graph.json', 'manifest.json', 'model.onnx']
    """
    if not isinstance(hybrid, HybridModule):
        raise BundleError(f"{type(hybrid).__name__} is no hybrid; give what qcascade.compile returns.")
    if hybrid._state.evaluation is None:
        raise BundleError(
            f"{hybrid.plan.model} was captured module by module, so that its own Python code runs on and there is no graph "
            f"to write as ONNX ({'; '.join(hybrid.plan.capture.notes)}). Bundles hold models that torch.export captures."
        )
    if recurrent := sorted({str(n.target) for n in hybrid._state.evaluation.graph.nodes if n.target in RECURRENT}):
        raise BundleError(
            f"{hybrid.plan.model} runs {', '.join(recurrent)}, which torch writes as ONNX for one sequence length only. "
            "Bundles hold models without recurrent layers."
        )
    stored, evaluation = stored_tensors(hybrid), Evaluation(hybrid)
    tensors = {**stored.tensors, **_derived(evaluation)}
    check_dtypes(tensors, cast_at_once(hybrid))
    planned = layout(tensors)
    example = None if example_inputs is None else _tensors(hybrid, example_inputs)
    model = onnx_model(hybrid, evaluation, planned.places, stored.aliases, example)
    contents: dict[str, Content] = {
        MODEL: model.data,
        REPORT: hybrid.plan.to_json().encode(),
        WEIGHTS: lambda write: write_weights(write, planned, tensors),
    }
    try:
        contents[GRAPH] = hybrid_json(hybrid, lambda note: warnings.warn(note, stacklevel=3))
    except BundleError as error:
        warnings.warn(f"the bundle runs in onnxruntime but has no way back into torch: {error}", stacklevel=2)
    state = hybrid._state
    known: dict[tuple[str, ...], CircuitEntry] = {}
    kernels = []
    for region, path_in in state.kernels.items():
        found = next(kernel for kernel in model.kernels if kernel.path == path_in)
        circuits, files = circuit_files(evaluation.nodes[path_in].kernel, region, state.target, known)
        contents.update(files)
        kernels.append(_entry(found, region, evaluation, stored.aliases, circuits))
    manifest = Manifest(
        producer=f"qcascade {importlib.metadata.version('qcascade')}",
        model=hybrid.plan.model,
        target=TargetEntry(name=state.target.name, document=_document(state.target)),
        inputs=model.inputs,
        outputs=model.outputs,
        kernels=tuple(kernels),
    )
    write_bundle(path, manifest, contents)
    return Path(path)


def _derived(evaluation: Evaluation) -> dict[str, Tensor]:
    """Tensors that kernels' bodies need beside the hybrid's own, by their names in the bundle."""
    return {
        f"{path}.{node.prefix}{name}": node.get_submodule(DERIVED).state_dict()[name]
        for path, node in evaluation.nodes.items()
        if node.prefix
        for name in node.names
    }


def _tensors(hybrid: HybridModule, example_inputs: Any) -> list[Tensor]:
    """The tensors of an example's call, in the model's order."""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    if isinstance(example_inputs, Mapping):
        kwargs = example_inputs
    else:
        args = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    return [leaf for leaf in hybrid._state.interface.leaves(args, kwargs) if isinstance(leaf, Tensor)]


def _document(target: Target) -> dict[str, Any] | None:
    if target.qubits is None:
        return None
    document: dict[str, Any] = json.loads(target.to_json())
    return document


def _entry(
    kernel: ExportedKernel,
    region: str,
    evaluation: Evaluation,
    aliases: Mapping[str, str],
    circuits: tuple[CircuitEntry, ...],
) -> KernelEntry:
    node = evaluation.nodes[kernel.path]
    names = {name: f"{kernel.path}.{name}" for name in node.kernel.state_dict()}
    made = {name: f"{kernel.path}.{node.prefix}{name}" for name in node.names} if node.prefix else {}
    return KernelEntry(
        name=region,
        module=kernel.path,
        kernel=type(node.kernel).kernel_name,
        function=kernel.function,
        node=kernel.node,
        arguments=dict(kernel.arguments),
        inputs=kernel.inputs,
        outputs=kernel.outputs,
        weights={name: aliases.get(full, full) for name, full in names.items()},
        derived=made,
        circuits=circuits,
        needs_executor=kernel.needs_executor,
    )
