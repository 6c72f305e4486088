"""What a bundle holds, for people and programs: a path in, a verified summary out, as text or a JSON-ready dictionary.

Everything is verified as `load` verifies it, but onnxruntime is not started and no circuit is built.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from qcascade.bundle.drawing import Drawn, draw, read_circuit
from qcascade.bundle.manifest import MANIFEST, MODEL, WEIGHTS, CircuitFiles, KernelEntry, Manifest, TensorEntry
from qcascade.bundle.model import read_model
from qcascade.bundle.reader import Archive, open_archive
from qcascade.bundle.strict_json import read_json
from qcascade.bundle.tensors import WeightsFile
from qcascade.report.units import bytes_text


@dataclass(frozen=True, slots=True)
class CircuitSummary:
    """A circuit as designed, and as compiled where there is a target."""

    name: str
    designed: Drawn
    compiled: Drawn | None


@dataclass(frozen=True, slots=True)
class BundleSummary:
    """What `qcascade inspect` shows."""

    path: str
    size: int  # bytes on the disk
    manifest: Manifest
    nodes: int  # of the ONNX graph
    parameters: int  # numbers among the weights
    circuits: dict[str, tuple[CircuitSummary, ...]]  # by kernel

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; sizes are bytes."""
        weights = self.manifest.file(WEIGHTS).size
        return {
            "path": self.path,
            "size": self.size,
            "size_weights": weights,
            "size_rest": self.size - weights,
            "onnx_nodes": self.nodes,
            "parameters": self.parameters,
            "checksums": "verified",
            "circuits": {
                kernel: [
                    {
                        "name": one.name,
                        "qubits": len(one.designed.wires),
                        "gates": len(one.designed.gates),
                        "two_qubit_gates": one.designed.two_qubit_gates,
                        "compiled_gates": None if one.compiled is None else len(one.compiled.gates),
                        "compiled_two_qubit_gates": None if one.compiled is None else one.compiled.two_qubit_gates,
                    }
                    for one in circuits
                ]
                for kernel, circuits in self.circuits.items()
            },
            "manifest": self.manifest.model_dump(mode="json"),
        }


def inspect(path: str | os.PathLike[str]) -> BundleSummary:
    """Verify a bundle and sum it up.

    Raises:
        BundleError: It is damaged, not safe to read, or inconsistent.
    """
    with open_archive(path) as archive:
        manifest = archive.manifest
        weights = WeightsFile(archive.weights())
        model = read_model(archive.read(MODEL), manifest, weights)
        parameters = sum(place.length // place.dtype.itemsize for place in weights.places.values())
        circuits = {entry.name: _circuits(archive, entry) for entry in manifest.kernels}
        return BundleSummary(str(path), archive.size, manifest, len(model.graph.node), parameters, circuits)


def inspected_text(summary: BundleSummary, width: int = 100, *, drawings: bool = True) -> str:
    """The summary for people, circuits drawn at most `width` columns wide."""
    manifest = summary.manifest
    weights = manifest.file(WEIGHTS).size
    lines = [
        f"{summary.path}: {manifest.model}, for {manifest.target.name}, schema {manifest.schema_version}, by {manifest.producer}",
        f"size       {bytes_text(summary.size)}: weights {bytes_text(weights)}, the rest {bytes_text(summary.size - weights)}",
        f"checksums  verified: {len(manifest.files)} files, listed in {MANIFEST}",
        f"inputs     {', '.join(map(_tensor, manifest.inputs)) or 'none'}",
        f"outputs    {', '.join(map(_tensor, manifest.outputs)) or 'none'}",
        f"model      {summary.nodes} ONNX nodes, {summary.parameters:,} numbers stored",
        f"kernels    {len(manifest.kernels)}",
    ]
    for entry in manifest.kernels:
        said = ", ".join(f"{name}={value!r}"[:40] for name, value in entry.arguments.items())
        runs = f"needs an executor: {entry.needs_executor}" if entry.needs_executor else "runs in onnxruntime"
        lines += ["", f"{entry.name}: {entry.kernel}({said})", f"  {runs}"]
        for one in summary.circuits[entry.name]:
            lines.append(f"  circuit {one.name}: {_counts(one.designed)}")
            if one.compiled is not None:
                lines.append(f"    compiled for {manifest.target.name}: {_counts(one.compiled)}")
            if drawings:
                lines += [f"    {line}".rstrip() for line in draw(one.designed, max(20, width - 4)).splitlines()]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _circuits(archive: Archive, entry: KernelEntry) -> tuple[CircuitSummary, ...]:
    def read(files: CircuitFiles) -> Drawn:
        return read_circuit(read_json(archive.read(files.pytket), files.pytket), files.pytket)

    return tuple(
        CircuitSummary(one.name, read(one.designed), None if one.compiled is None else read(one.compiled))
        for one in entry.circuits
    )


def _counts(circuit: Drawn) -> str:
    return f"{len(circuit.wires)} qubits, {len(circuit.gates)} gates, {circuit.two_qubit_gates} on two qubits"


def _tensor(entry: TensorEntry) -> str:
    return f"{entry.name} {entry.dtype}[{', '.join('?' if size is None else str(size) for size in entry.shape)}]"
