"""A quantum linear-system solver simulated on Aer: block encoding by unitary dilation and quantum singular value transformation.

In: a real square system A x = b, padded to 2^q rows. The block encoding of A†/α, α = σ_max, is the dilation
[[A†, √(1−A†A)], [√(1−AA†), −A]]/α, built classically: this is the algorithm, exactly, and no efficient circuit for A. The polynomial
scale/x of `phases` is applied to its singular values by alternating it with its inverse between rotations of the dilation qubit
(Gilyén, Su, Low and Wiebe 2019, arXiv 1806.01838, Theorem 17 and Corollary 18, numbers as public code cites them), and a further qubit in
|+⟩, which turns the rotations round, picks the polynomial's real part. Both ancillas found in |0⟩ leave x/‖x‖; the probability of
that also gives ‖x‖.
Qubits: q + 2, at most `MOST_QUBITS`; wider systems are refused.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qiskit import QuantumCircuit
from qiskit.circuit.library import UnitaryGate
from qiskit_aer import AerSimulator
from scipy import sparse

from qcascade.cost_models.fault_tolerant.phases import InversePolynomial, inverse_polynomial, symmetric_phases
from qcascade.errors import CircuitError

MOST_QUBITS = 12
_CHUNK_BYTES = 1 << 28  # of block encodings in one circuit: Aer copies each

Matrix = NDArray[np.float64]
State = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, eq=False)
class SolverRun:
    """What the solver gave, beside the exact solution."""

    qubits: int
    queries: int  # to the block encoding and its inverse
    condition: float  # κ of A
    success_probability: float
    fidelity: float  # |⟨x|x̃⟩|² with the exact normalised solution
    solution: Matrix  # x, with the norm that the success probability gives
    relative_error: float  # ‖x − x_exact‖ / ‖x_exact‖
    polynomial_error: float  # see InversePolynomial.error


def solve(matrix: sparse.csr_array | ArrayLike, right: ArrayLike, precision: float = 1e-3) -> SolverRun:
    """Solve A x = b by the simulated quantum circuit.

    Args:
        matrix: A, real, square, invertible.
        right: b, not zero.
        precision: of the polynomial for 1/x, relative to 1/x.

    Raises:
        CircuitError: A is not square or singular, b does not fit or is zero, or the circuit needs more than `MOST_QUBITS`.

    Example:
        >>> solve([[2.0, 0.0], [0.0, 1.0]], [1.0, 1.0], 1e-3).solution.round(2)
        array([0.5, 1. ])
    """
    a = matrix.toarray() if isinstance(matrix, sparse.csr_array) else np.asarray(matrix, dtype=np.float64)
    b = np.asarray(right, dtype=np.float64)
    if a.ndim != 2 or a.shape != (len(b), len(b)) or not np.any(b):
        raise CircuitError(
            f"A has shape {a.shape} and b {b.shape}; a square A and a b that fits and is not zero are needed."
        )
    qubits = max(1, math.ceil(math.log2(len(b))))
    if qubits + 2 > MOST_QUBITS:
        raise CircuitError(
            f"{len(b)} unknowns take {qubits + 2} qubits; the simulated solver takes up to {MOST_QUBITS}."
        )
    left, values, right_vectors = np.linalg.svd(_padded(a, 2**qubits))
    if values[-1] <= 1e-12 * values[0]:
        raise CircuitError("A is singular; a linear-system solver needs an invertible one.")
    alpha, kappa = float(values[0]), float(values[0] / values[-1])
    polynomial = inverse_polynomial(kappa, precision)
    start = np.zeros(2**qubits)
    start[: len(b)] = b / np.linalg.norm(b)
    state = _transform(_dilation(left, values / alpha, right_vectors).T, polynomial, start)
    kept = state[: 2**qubits]  # both ancillas 0
    probability = float(np.vdot(kept, kept).real)
    found = kept.real[: len(b)] * np.linalg.norm(b) / (polynomial.scale * alpha)
    exact = np.linalg.solve(a, b)
    overlap = abs(np.vdot(kept[: len(b)], exact)) ** 2 / (probability * float(exact @ exact))
    error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    return SolverRun(
        qubits + 2, polynomial.degree, kappa, probability, float(overlap), found, error, polynomial.error
    )  # fmt: skip


def _padded(a: Matrix, size: int) -> Matrix:
    """A beside a multiple of the identity between its extreme singular values: κ stays."""
    whole = np.eye(size) * np.linalg.norm(a, 2)
    whole[: len(a), : len(a)] = a
    return whole


def _dilation(left: Matrix, values: Matrix, right: Matrix) -> Matrix:
    """[[A, √(1−AA†)], [√(1−A†A), −A†]] of A = left · values · right with values ≤ 1."""
    rest = np.sqrt(np.clip(1 - values**2, 0, None))
    a = (left * values) @ right
    return np.block([[a, (left * rest) @ left.T], [(right.T * rest) @ right, -a.T]])


def _transform(encoding: Matrix, polynomial: InversePolynomial, start: Matrix) -> State:
    """The final state, the two ancillas its slowest indices.

    Phases for reflections: W(x) = i e^{−iπZ/4} R(x) e^{−iπZ/4}, so that inner phases lose π/2 and the outer ones π/4; the
    first factor also takes i^d, and −i, which turns the imaginary part into the real one.
    """
    phases = symmetric_phases(polynomial.coefficients) - math.pi / 2
    phases[0] += math.pi / 4 + (polynomial.degree - 1) * math.pi / 2
    phases[-1] += math.pi / 4
    system = int(math.log2(len(start)))
    dilation, sign = system, system + 1
    whole = list(range(system + 1))
    gates = UnitaryGate(encoding, label="U"), UnitaryGate(encoding.T, label="U†")
    per_circuit = max(2, _CHUNK_BYTES // (16 * encoding.size))
    simulator = AerSimulator(method="statevector")
    state: State = np.kron(np.array([1, 0, 1, 0]) / np.sqrt(2), start).astype(np.complex128)  # |+⟩ ⊗ |0⟩ ⊗ |b⟩
    backwards = phases[::-1]
    for first in range(0, polynomial.degree + 1, per_circuit):
        circuit = QuantumCircuit(system + 2)
        circuit.set_statevector(state)
        for k in range(first, min(first + per_circuit, polynomial.degree + 1)):
            if k:
                circuit.append(gates[(k - 1) % 2], whole)
            circuit.rzz(-2 * float(backwards[k]), dilation, sign)
        if first + per_circuit > polynomial.degree:
            circuit.h(sign)
        circuit.save_statevector()
        state = np.asarray(simulator.run(circuit).result().get_statevector())
        del circuit
        gc.collect()  # Aer's jobs hold their circuits in reference cycles: at twelve qubits gigabytes
    return state
