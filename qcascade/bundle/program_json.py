"""Circuits in a graph (of a `QuantumLayer` in the model, say): programs as `engine.text` writes them, checked.

What comes in: the text that a node of `qcascade::simulate` carries, or its JSON from a file. What goes out: the same text,
once every index in it is known to be in range: the engine's compiled code takes them on trust.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from qcascade.bundle.graph_part import Part
from qcascade.errors import BundleError

MAX_QUBITS = 30
MAX_OBSERVABLES = 100_000
MAX_COEFFICIENTS = 2**24
_PAULI = re.compile(r"I|([XYZ][0-9]{1,2})+")

Index = Annotated[int, Field(ge=0, lt=2**31)]


class _Program(Part):
    version: Literal[1]
    qubits: Annotated[int, Field(ge=1, le=MAX_QUBITS)]
    data: Index
    weights: Index
    layers: tuple[
        tuple[Literal["local"], tuple[tuple[tuple[Literal["X", "Y", "Z"], Index], ...], ...]]
        | tuple[Literal["diagonal"], tuple[tuple[Index, ...], ...]]
        | tuple[Literal["linear"], tuple[Index, ...]],
        ...,
    ]
    rows: tuple[Index, ...]
    columns: tuple[Index, ...]
    values: tuple[float, ...]
    constants: tuple[float, ...]
    phase: Index | None


def program_document(text: str) -> Any:
    """The JSON of a program's text.

    Raises:
        BundleError: It would not come back as it is.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BundleError(f"a circuit in the graph has no program that can be read: {error}.") from error
    if program_text_of(document) != text:
        raise BundleError("a circuit in the graph has a program that a bundle has no form for.")
    return document


def program_text_of(document: Any) -> str:
    """The text of a program's JSON, as the engine writes it."""
    return json.dumps(document, separators=(",", ":"))


def check_simulation(program: Any, measured: Any) -> None:
    """Refuse a program or measurement that the engine may not be given.

    Raises:
        BundleError: An index is out of range, or something is not a program or a measurement.

    Example:
        >>> check_simulation("{}", "Z0")
        Traceback (most recent call last):
        qcascade.errors.BundleError: graph.json: a circuit is not valid: version: Field required.
    """
    if not isinstance(program, str) or not isinstance(measured, str):
        raise BundleError("graph.json: a circuit and what is measured are written out.")
    try:
        made = _Program.model_validate_json(program, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][:4])
        raise BundleError(f"graph.json: a circuit is not valid: {place}: {first['msg'][:100]}.") from error
    angles, states, width = len(made.constants), 2**made.qubits, made.data + made.weights
    used = [] if made.phase is None else [made.phase]
    layers: tuple[tuple[str, Any], ...] = made.layers
    for kind, body in layers:
        if kind == "local":
            _require(len(body) == made.qubits)
            used += [angle for rotations in body for _, angle in rotations]
        elif kind == "diagonal":
            _require(all(len(term) in (2, 3) and max(term[1:]) < states for term in body))
            used += [term[0] for term in body]
        else:
            _require(len(body) == made.qubits and _invertible([int(column) for column in body]))
            _require(all(column < states for column in body))
    _require(all(angle < angles for angle in used))
    _require(len(made.rows) == len(made.columns) == len(made.values) and angles * width <= MAX_COEFFICIENTS)
    _require(all(row < angles for row in made.rows) and all(column < width for column in made.columns))
    if measured in ("amplitudes", "probabilities"):
        return
    words = measured.split(" ")
    _require(len(words) <= MAX_OBSERVABLES and all(_PAULI.fullmatch(word) for word in words))
    for word in words:
        qubits = [int(number) for number in re.findall(r"[0-9]+", word)]
        _require(len(set(qubits)) == len(qubits) and all(qubit < made.qubits for qubit in qubits))


def _require(holds: bool) -> None:
    if not holds:
        raise BundleError("graph.json: a circuit is not valid: an index is out of range, or something is left over.")


def _invertible(columns: list[int]) -> bool:
    """Whether the map of bits is a permutation, by elimination over GF(2)."""
    basis: list[int] = []
    for column in columns:
        for known in basis:
            column = min(column, column ^ known)
        if not column:
            return False
        basis.append(column)
    return True
