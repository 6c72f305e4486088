"""`export`: a hybrid into a bundle, which runs wherever ONNX Runtime does and holds no code.

What comes in: a hybrid. What goes out: one zip or directory with the model in ONNX, every weight once, the circuits, the
hybrid's graphs, the report and a manifest (`bundle.manifest`). It is written whole or not at all, the same bytes for the
same hybrid, and weights go from their storage to the file one by one.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qcascade.bundle.archive import Content, write_bundle
from qcascade.bundle.kernel_nodes import DERIVED, Evaluation
from qcascade.bundle.manifest import MODEL, REPORT, WEIGHTS, KernelEntry, Manifest, TargetEntry
from qcascade.bundle.onnx_model import ExportedKernel, check_dtypes, onnx_model
from qcascade.bundle.weights import layout, stored_tensors, write_weights
from qcascade.errors import BundleError
from qcascade.hybrid import HybridModule


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
    stored, evaluation = stored_tensors(hybrid), Evaluation(hybrid)
    tensors = {**stored.tensors, **_derived(evaluation)}
    check_dtypes(tensors)
    planned = layout(tensors)
    example = None if example_inputs is None else _tensors(hybrid, example_inputs)
    model = onnx_model(hybrid, evaluation, planned.places, stored.aliases, example)
    contents: dict[str, Content] = {
        MODEL: model.data,
        REPORT: hybrid.plan.to_json().encode(),
        WEIGHTS: lambda write: write_weights(write, planned, tensors),
    }
    regions = {path: name for name, path in hybrid._state.kernels.items()}
    kernels = [_entry(kernel, regions[kernel.path], evaluation, stored.aliases) for kernel in model.kernels]
    manifest = Manifest(
        producer=f"qcascade {importlib.metadata.version('qcascade')}",
        model=hybrid.plan.model,
        target=TargetEntry(name=hybrid._state.target.name),
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


def _entry(kernel: ExportedKernel, region: str, evaluation: Evaluation, aliases: Mapping[str, str]) -> KernelEntry:
    node = evaluation.nodes[kernel.path]
    own = [name for name, _ in (*node.kernel.named_parameters(), *node.kernel.named_buffers())]
    names = {name: f"{kernel.path}.{name}" for name in own}
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
        circuits=(),
        needs_executor=kernel.needs_executor,
    )
