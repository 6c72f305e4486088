"""A program and its measurement as one line of JSON, and back: how an exported graph carries its circuits."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np

from qcascade.circuits.template import Expectations, Measurement, Probabilities
from qcascade.engine.program import DiagonalLayer, Layer, LinearLayer, LocalLayer, PhaseTerm, Program, Rotation

_VERSION = 1


@lru_cache(maxsize=512)
def to_text(program: Program, measurement: Measurement | None) -> str:
    """JSON of an affine program (`Program.on_angles` makes one of any) and what is measured; None: amplitudes."""
    layers: list[list[object]] = []
    for layer in program.layers:
        if isinstance(layer, LocalLayer):
            layers.append(["local", [[[r.axis, r.angle] for r in rotations] for rotations in layer.rotations]])
        elif isinstance(layer, DiagonalLayer):
            layers.append(["diagonal", [[term.angle, *term.masks] for term in layer.terms]])
        elif isinstance(layer, LinearLayer):
            layers.append(["linear", list(layer.columns)])
    rows, columns = np.nonzero(program.coefficients)
    return json.dumps(
        {
            "version": _VERSION,
            "qubits": program.qubits,
            "data": len(program.data),
            "weights": len(program.weights),
            "layers": layers,
            "rows": rows.tolist(),
            "columns": columns.tolist(),
            "values": program.coefficients[rows, columns].tolist(),
            "constants": program.constants.tolist(),
            "phase": program.phase,
            "measured": measurement.paulis
            if isinstance(measurement, Expectations)
            else None
            if measurement is None
            else "probabilities",
        },
        separators=(",", ":"),
    )


@lru_cache(maxsize=512)
def from_text(text: str) -> tuple[Program, Measurement | None]:
    """The program and measurement of a text; symbols are named by number."""
    content = json.loads(text)
    layers: list[Layer] = []
    for kind, body in content["layers"]:
        if kind == "local":
            layers.append(LocalLayer(tuple(tuple(Rotation(axis, angle) for axis, angle in r) for r in body)))
        elif kind == "diagonal":
            layers.append(DiagonalLayer(tuple(PhaseTerm(angle, tuple(masks)) for angle, *masks in body)))
        else:
            layers.append(LinearLayer(tuple(body)))
    coefficients = np.zeros((len(content["constants"]), content["data"] + content["weights"]))
    coefficients[content["rows"], content["columns"]] = content["values"]
    program = Program(
        content["qubits"],
        tuple(f"x{k}" for k in range(content["data"])),
        tuple(f"w{k}" for k in range(content["weights"])),
        tuple(layers),
        coefficients,
        np.array(content["constants"], dtype=np.float64),
        content["phase"],
    )
    measured = content["measured"]
    if measured is None or measured == "probabilities":
        return program, None if measured is None else Probabilities()
    return program, Expectations(tuple(tuple((qubit, axis) for qubit, axis in pauli) for pauli in measured))
