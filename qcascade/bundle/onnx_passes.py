"""torch's exported programs as ONNX: translated, simplified, and freed of everything that is not the function.

What comes in: an `ExportedProgram`. What goes out: an `onnx_ir` model whose weights are inputs (so that nothing is computed
from them beforehand, merged or copied) and which holds no stack traces, paths or names of this machine.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass
from torch.export import ExportedProgram

from qcascade.bundle.known_operators import in_known_operators
from qcascade.capture.export_settings import quick_export
from qcascade.capture.logs import loggers_at
from qcascade.errors import BundleError, first_line

OPSET = 20
_READ = 1024  # elements of what goes into such a computation
_TABLES: dict[tuple[tuple[str, Any], ...], Any] = {}  # of operators, by what was asked for
_FOLDED = 64  # elements of what is computed beforehand: shapes are, tables of 2^q basis states are not


def translated(program: ExportedProgram, what: str) -> ir.Model:
    """The program in ONNX operators, as torch translates it.

    Args:
        program: What to translate.
        what: Of whom, for messages.

    Raises:
        BundleError: An operator has no translation, or computes in bfloat16.
    """
    with _quiet(), _operators_once(), _undecomposed(), quick_export():
        try:
            found = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, opset_version=OPSET)
        except torch.onnx.OnnxExporterError as error:
            raise BundleError(f"{what} cannot be written as ONNX: {_reason(error)}") from error
    assert found is not None
    model: ir.Model = found.model
    for node in model.graph:
        if any(value.dtype == ir.DataType.BFLOAT16 for value in node.outputs):
            scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
            raise BundleError(
                f"{what} computes in bfloat16 (operator {node.op_type}, {node.name or scopes}), which onnxruntime has no "
                "CPU operators for. Compile the model without autocast (or with autocast(enabled=False)), in float32."
            )
    return model


def cleaned(model: ir.Model) -> None:
    """Simplify a model in place; values and nodes lose their history.

    Rewriting by patterns, the slow part of onnxscript's own list of passes, is left to the runtime.
    """
    fold = FoldConstantsPass(shape_inference=True, input_size_limit=_READ, output_size_limit=_FOLDED)
    simplify = ir.passes.PassManager([fold, common.RemoveUnusedNodesPass()], steps=2, early_stop=True)
    finish = (
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    ir.passes.Sequential(common.InlinePass(), simplify, *finish)(model)
    graphs: list[Any] = [model.graph, *model.functions.values()]
    for graph in graphs:
        graph.metadata_props.clear()
        graph.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *getattr(graph, "initializers", {}).values()):
            value.metadata_props.clear()
            value.doc_string = None
        for node in ir.traversal.RecursiveGraphIterator(graph):
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
    model.metadata_props.clear()
    model.doc_string = None


def keep_apart(graph: ir.Graph) -> None:
    """Write Add as Sum, which is the same, before layer normalisations and GELUs.

    onnxruntime fuses Add with what follows into SkipLayerNormalization and BiasGelu, which on its CPU provider take up to
    three times as long as the parts (tests/benchmarks/bundle.py).
    """
    for node in graph:
        users = (
            {use.node.op_type for use in node.outputs[0].uses()} if node.op_type == "Add" and not node.domain else ()
        )
        if "LayerNormalization" in users or "Gelu" in users:
            node.op_type = "Sum"


def _reason(error: BaseException) -> str:
    """The operator that failed, and why, from the chain of what torch says."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__
    return first_line(causes[-1], named=True)


@contextlib.contextmanager
def _operators_once() -> Iterator[None]:
    """With torch's table of operators kept, which nothing here adds to.

    torch makes it at every export: it has onnxscript parse the sources of its 500 operators, and reads all their signatures.
    """
    inside = importlib.import_module("torch.onnx._internal.exporter._registration")
    kind: Any = getattr(inside, "ONNXRegistry", None)
    make = getattr(kind, "__dict__", {}).get("from_torchlib")
    if make is None:
        yield
        return

    def kept(cls: Any, /, **options: Any) -> Any:
        key = tuple(sorted(options.items()))
        if key not in _TABLES:
            _TABLES[key] = make.__get__(None, cls)(**options)
        return _TABLES[key]

    kind.from_torchlib = classmethod(kept)
    try:
        yield
    finally:
        kind.from_torchlib = make


@contextlib.contextmanager
def _undecomposed() -> Iterator[None]:
    """With torch's own decomposition left out where `known_operators` does without it."""
    inside = importlib.import_module("torch.onnx._internal.exporter._fx_passes")
    decompose = getattr(inside, "decompose_with_registry", None)
    if decompose is None:
        yield
        return

    def quickly(program: ExportedProgram, registry: Any) -> ExportedProgram:
        known = in_known_operators(program, {found[0].fx_target for found in registry.functions.values()})
        return program if known else decompose(program, registry)

    inside.decompose_with_registry = quickly  # type: ignore[attr-defined]
    try:
        yield
    finally:
        inside.decompose_with_registry = decompose  # type: ignore[attr-defined]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's progress lines and its notes on packages that are not needed."""
    with (
        loggers_at(logging.ERROR, "torch.onnx"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
