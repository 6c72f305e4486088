"""OpenQASM files in and out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytket.circuit import Circuit
from pytket.qasm.qasm import circuit_from_qasm_str
from qiskit import QuantumCircuit, qasm2, qasm3

from qcascade.errors import CircuitError, first_line

if TYPE_CHECKING:
    from qcascade.routing.route import RoutedCircuit


def read_qasm(file: Path) -> Circuit:
    """The circuit of an OpenQASM 2 or 3 file; which of them is told by its header.

    Raises:
        CircuitError: The file cannot be read, or is not OpenQASM.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CircuitError(f"{file} cannot be read: {error}.") from error
    version = re.search(r"^\s*OPENQASM\s+(\d)", text, re.MULTILINE)
    if version is None:
        raise CircuitError(f"{file} has no line OPENQASM 2.0 or 3.0; an OpenQASM file is needed.")
    try:
        return circuit_from_qasm_str(text if version[1] == "2" else _as_version_2(text), maxwidth=1024)
    except CircuitError:
        raise
    except Exception as error:  # the parsers raise errors of many kinds
        raise CircuitError(f"{file} is no OpenQASM {version[1]} that can be read: {first_line(error)}") from error


def write_qasm(routed: RoutedCircuit, file: Path) -> None:
    """Write a routed circuit as OpenQASM 2, ``q[i]`` being the target's qubit i and ``c`` all classical bits in order.

    Raises:
        CircuitError: It has symbols, or the file cannot be written.
    """
    text = qasm2.dumps(routed.to_qiskit())
    try:
        file.write_text(text + "\n")
    except OSError as error:
        raise CircuitError(f"{file} cannot be written: {error.strerror}.") from error


def _as_version_2(text: str) -> str:
    circuit: QuantumCircuit = qasm3.loads(text)
    return str(qasm2.dumps(circuit))
