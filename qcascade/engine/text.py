"""Programs as JSON and measurements as words, and back: how an exported graph carries its circuits."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np

from qcascade.circuits.template import Expectations, Measurement, Probabilities
from qcascade.engine.program import DiagonalLayer, Layer, LinearLayer, LocalLayer, PhaseTerm, Program, Rotation

_VERSION = 1


def program_text(program: Program) -> str:
    """One line of JSON; angles that are not affine are left at their affine part."""
    layers: list[list[object]] = []
    for layer in program.layers:
        if isinstance(layer, LocalLayer):
            layers.append(["local", [[[r.axis, r.angle] for r in rotations] for rotations in layer.rotations]])
        elif isinstance(layer, DiagonalLayer):
            layers.append(["diagonal", [[term.angle, *term.masks] for term in layer.terms]])
        elif isinstance(layer, LinearLayer):
            layers.append(["linear", list(layer.columns)])
    rows, columns = np.nonzero(program.coefficients)
    content = {
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
    }
    return json.dumps(content, separators=(",", ":"))


@lru_cache(maxsize=512)
def program_of(text: str) -> Program:
    """The program of a text; symbols are named by number."""
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
    return Program(
        content["qubits"],
        tuple(f"x{k}" for k in range(content["data"])),
        tuple(f"w{k}" for k in range(content["weights"])),
        tuple(layers),
        coefficients,
        np.array(content["constants"], dtype=np.float64),
        content["phase"],
    )


@lru_cache(maxsize=512)
def measurement_of(text: str) -> Measurement | None:
    """The measurement of a text: "amplitudes", "probabilities", or Pauli strings as `Expectations.text` writes them.

    Example:
        >>> measurement_of("Z0 X1Y2 I").paulis
        (((0, 'Z'),), ((1, 'X'), (2, 'Y')), ())
    """
    if text in ("amplitudes", "probabilities"):
        return None if text == "amplitudes" else Probabilities()
    paulis = []
    for word in text.split():
        factors = word.replace("X", " X").replace("Y", " Y").replace("Z", " Z").split()
        paulis.append(tuple((int(factor[1:]), factor[0]) for factor in factors if factor != "I"))
    return Expectations(tuple(paulis))
