"""A circuit template: a symbolic pytket circuit, which of its symbols are data and which weights, and what is measured.

A template is what kernels own, the engine simulates, the cost models count and routing compiles. Angles follow pytket:
gate parameters are half-turns, so a weight in radians appears as ``w / pi``. Basis states follow pytket too: qubit 0 is
the most significant bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from pytket.circuit import Circuit
from pytket.passes import DecomposeBoxes, RemoveBarriers, SequencePass

from qcascade.errors import CircuitError

PauliString: TypeAlias = tuple[tuple[int, str], ...]  # ((qubit, "X" | "Y" | "Z"), ...), qubits ascending


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Measure every qubit in the computational basis: 2^q probabilities."""

    text: ClassVar[str] = "probabilities"


@dataclass(frozen=True, slots=True)
class Expectations:
    """Measure expectation values of Pauli strings."""

    paulis: tuple[PauliString, ...]
    text: str = field(init=False, repr=False, compare=False)  # one word a string: "Z0 X1Y2 I"
    _hash: int = field(init=False, repr=False, compare=False)  # computed once: it is looked up at every simulation

    def __post_init__(self) -> None:
        words = ["".join(f"{axis}{qubit}" for qubit, axis in pauli) or "I" for pauli in self.paulis]
        object.__setattr__(self, "text", " ".join(words))
        object.__setattr__(self, "_hash", hash(self.paulis))

    def __hash__(self) -> int:
        return self._hash


Measurement: TypeAlias = Probabilities | Expectations


@dataclass(frozen=True, eq=False)
class CircuitTemplate:
    """A symbolic circuit with its symbols split into data and weights.

    Args:
        circuit: pytket circuit; every free symbol is named in `data` or `weights`.
        data: Symbols bound to an example's values, in column order.
        weights: Symbols bound to trained values, in the order of the weight vector.
        amplitudes: True where the circuit starts from a loaded state instead of |0…0⟩.
        real_amplitudes: True where the loaded amplitudes are real, so that loading needs no phases.
        measurement: What is measured.

    Raises:
        CircuitError: A free symbol is in neither list, or one is in both.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from sympy import Symbol
        >>> circuit = Circuit(1).Ry(Symbol("x"), 0)
        >>> CircuitTemplate(circuit, data=("x",), weights=()).qubits
        1
    """

    circuit: Circuit
    data: tuple[str, ...]
    weights: tuple[str, ...]
    amplitudes: bool = False
    real_amplitudes: bool = False
    measurement: Measurement = Probabilities()
    qubits: int = field(init=False)  # width of the circuit

    def __post_init__(self) -> None:
        object.__setattr__(self, "qubits", int(self.circuit.n_qubits))
        free = {str(s) for s in self.circuit.free_symbols()}
        both = set(self.data) & set(self.weights)
        unknown = free - set(self.data) - set(self.weights)
        if both or unknown:
            raise CircuitError(
                f"symbols {sorted(both)} are both data and weights; symbols {sorted(unknown)} are neither. "
                "Name every free symbol of the circuit in exactly one of `data` and `weights`."
            )

    def gates_alone(self) -> Circuit:
        """A copy of the circuit without boxes, which are opened, and without barriers, which rebasing does not take."""
        copied = self.circuit.copy()
        SequencePass([DecomposeBoxes(), RemoveBarriers()]).apply(copied)
        return copied
