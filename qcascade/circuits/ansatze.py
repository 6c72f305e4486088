"""The kernels' circuits. Angles are symbols in radians, written as half-turns (``symbol / pi``) for pytket."""

from __future__ import annotations

import numpy as np
from pytket.circuit import Circuit, OpType
from sympy import Expr, Symbol, pi

_ROTATIONS = {"X": OpType.Rx, "Y": OpType.Ry, "Z": OpType.Rz}


def _radians(name: str) -> Expr:
    return Symbol(name) / pi


def position_mixer(qubits: int, layers: int) -> tuple[Circuit, tuple[str, ...]]:
    """The unitary U(θ) of amplitude attention pooling.

    Each layer has RY and RZ on every qubit, then a controlled phase between qubits w and (w + 2^l) mod q for every w,
    where l is the layer's number. At θ = 0 it is the identity.

    Args:
        qubits: Width q.
        layers: Number of layers L.

    Returns:
        The circuit and its weight symbols in order: per layer q RY, q RZ and the controlled phases' angles.

    Example:
        >>> circuit, weights = position_mixer(3, 1)
        >>> len(weights)
        9
    """
    circuit, weights = Circuit(qubits), list[str]()

    def weight(name: str) -> Expr:
        weights.append(name)
        return _radians(name)

    for layer in range(layers):
        for kind, gate in (("ry", OpType.Ry), ("rz", OpType.Rz)):
            for qubit in range(qubits):
                circuit.add_gate(gate, weight(f"{kind}_{layer}_{qubit}"), [qubit])
        for first, second in mixer_pairs(qubits, layer):
            circuit.add_gate(OpType.CU1, weight(f"cp_{layer}_{first}_{second}"), [first, second])
    return circuit, tuple(weights)


def mixer_pairs(qubits: int, layer: int) -> tuple[tuple[int, int], ...]:
    """Pairs (w, (w + 2^layer) mod q) of a mixer's layer, without those that fall on one qubit or repeat a pair."""
    pairs: dict[tuple[int, int], None] = {}
    for first in range(qubits):
        second = (first + 2**layer) % qubits
        if first != second and (second, first) not in pairs:
            pairs[first, second] = None
    return tuple(pairs)


def random_rotations(qubits: int, layers: int, rotations: int, seed: int) -> tuple[Circuit, tuple[str, ...]]:
    """A random circuit: layers of rotations about seeded random axes, then CZ along a seeded random perfect matching.

    Args:
        qubits: Width q; the matching leaves one qubit out where q is odd.
        layers: Number of layers L.
        rotations: Rotations in a row on each qubit of a layer; neighbours have different axes.
        seed: Of the axes and matchings.

    Returns:
        The circuit and its L·q·rotations data symbols in order of layer, qubit, rotation.

    Example:
        >>> circuit, angles = random_rotations(4, 2, 3, seed=0)
        >>> len(angles), circuit.n_2qb_gates()
        (24, 4)
    """
    random = np.random.default_rng(seed)
    circuit, angles = Circuit(qubits), list[str]()
    for layer in range(layers):
        for qubit in range(qubits):
            axis = ""
            for rotation in range(rotations):
                axis = str(random.choice([a for a in "XYZ" if a != axis]))
                angles.append(f"a_{layer}_{qubit}_{rotation}")
                circuit.add_gate(_ROTATIONS[axis], _radians(angles[-1]), [qubit])
        order = random.permutation(qubits)
        for first, second in zip(order[0::2], order[1::2], strict=False):
            circuit.CZ(int(first), int(second))
    return circuit, tuple(angles)


def offset_entangler(circuit: Circuit, blocks: int, offsets: int, prefix: str, *, lead: bool = True) -> tuple[str, ...]:
    """Append the PQC of Kim et al. (2025): M blocks of, for c = 1..C and every i.

    CNOT(i → i+c mod Q) and RY on the target.

    Args:
        circuit: Circuit to extend, Q qubits.
        blocks: Number of blocks M.
        offsets: Largest offset C; offsets that are multiples of Q are skipped, having no pair.
        prefix: Of the weight symbols' names.
        lead: Start with RY on every qubit, which makes Q(MC + 1) angles.

    Returns:
        The weight symbols in order.

    Example:
        >>> len(offset_entangler(Circuit(4), blocks=2, offsets=2, prefix="w"))
        20
    """
    qubits, weights = circuit.n_qubits, list[str]()

    def rotate(qubit: int) -> None:
        weights.append(f"{prefix}_{len(weights)}")
        circuit.Ry(_radians(weights[-1]), qubit)

    if lead:
        for qubit in range(qubits):
            rotate(qubit)
    for _ in range(blocks):
        for offset in range(1, offsets + 1):
            for control in range(qubits):
                target = (control + offset) % qubits
                if target != control:
                    circuit.CX(control, target)
                rotate(target)
    return tuple(weights)


def ring_ansatz(qubits: int, layers: int) -> tuple[Circuit, tuple[str, ...]]:
    """The adapter's circuit (Roh et al. 2025): layers of RY, RZ on every qubit, a CNOT ring, RY on every qubit.

    Example:
        >>> len(ring_ansatz(4, 2)[1])
        24
    """
    circuit, weights = Circuit(qubits), list[str]()
    for layer in range(layers):
        for kind, gate in (("ry", OpType.Ry), ("rz", OpType.Rz), ("cx", None), ("rf", OpType.Ry)):
            if gate is None:
                if qubits > 1:
                    for qubit in range(qubits):
                        circuit.CX(qubit, (qubit + 1) % qubits)
                continue
            for qubit in range(qubits):
                weights.append(f"{kind}_{layer}_{qubit}")
                circuit.add_gate(gate, _radians(weights[-1]), [qubit])
    return circuit, tuple(weights)


def angle_encoding(circuit: Circuit, names: tuple[str, ...]) -> None:
    """Append RY(x_i) on qubit i for every named data symbol, in radians."""
    for qubit, name in enumerate(names):
        circuit.Ry(_radians(name), qubit)
