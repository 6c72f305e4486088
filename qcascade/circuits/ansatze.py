"""The kernels' circuits. Angles are symbols in radians, written as half-turns (``symbol / pi``) for pytket.

Each has a choice of `entangler`, where its two-qubit gates lie:

- "source": as in the paper or design that the circuit is from; on a device they take routing;
- "chain": on neighbours of a chain, 0–1, 1–2, …, so that any device with a path that long needs no SWAP;
- "cycle": on neighbours of a ring, for devices that have a cycle of that length.

On chains and cycles a layer's even edges come first and its odd ones second, so that it is two gates deep (three on an
odd cycle).
"""

from __future__ import annotations

import numpy as np
from pytket.circuit import Circuit, OpType
from sympy import Expr, Symbol, pi

from qcascade.errors import CircuitError

ENTANGLERS = ("source", "chain", "cycle")
_ROTATIONS = {"X": OpType.Rx, "Y": OpType.Ry, "Z": OpType.Rz}


def _radians(name: str) -> Expr:
    return Symbol(name) / pi


def neighbours(qubits: int, entangler: str) -> tuple[tuple[int, int], ...]:
    """The edges (i, i + 1) of a "chain" or "cycle", even ones before odd ones.

    Raises:
        CircuitError: The entangler is neither.

    Example:
        >>> neighbours(4, "chain"), neighbours(4, "cycle")
        (((0, 1), (2, 3), (1, 2)), ((0, 1), (2, 3), (1, 2), (3, 0)))
    """
    if entangler not in ENTANGLERS[1:]:
        raise CircuitError(f"entangler={entangler!r} is unknown; choose one of {', '.join(ENTANGLERS)}.")
    last = qubits if entangler == "cycle" and qubits > 2 else qubits - 1
    edges = [(first, (first + 1) % qubits) for first in range(last)]
    return tuple(edges[0::2] + edges[1::2])


def matching(qubits: int, entangler: str, turn: int) -> tuple[tuple[int, int], ...]:
    """A largest matching of a "chain" or "cycle"; consecutive turns give different ones, which together cover it.

    Raises:
        CircuitError: The entangler is neither.

    Example:
        >>> matching(5, "chain", 0), matching(5, "chain", 1), matching(5, "cycle", 2)
        (((0, 1), (2, 3)), ((1, 2), (3, 4)), ((2, 3), (4, 0)))
    """
    edges = neighbours(qubits, entangler)
    if len(edges) == qubits:  # a cycle
        return tuple(((turn + k) % qubits, (turn + k + 1) % qubits) for k in range(0, 2 * (qubits // 2), 2))
    return tuple(edge for edge in edges if qubits == 2 or edge[0] % 2 == turn % 2)


def position_mixer(qubits: int, layers: int, entangler: str = "source") -> tuple[Circuit, tuple[str, ...]]:
    """The unitary U(θ) of amplitude attention pooling.

    Each layer has RY and RZ on every qubit, then a controlled phase between qubits w and (w + 2^l) mod q for every w,
    where l is the layer's number; on a chain or cycle between all neighbours. At θ = 0 it is the identity.

    Args:
        qubits: Width q.
        layers: Number of layers L.
        entangler: "source", "chain" or "cycle".

    Returns:
        The circuit and its weight symbols in order: per layer q RY, q RZ and the controlled phases' angles, of which a
        source layer has up to q, a chain's q − 1 and a cycle's q.

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
        for first, second in mixer_pairs(qubits, layer) if entangler == "source" else neighbours(qubits, entangler):
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


def random_rotations(
    qubits: int, layers: int, rotations: int, seed: int, entangler: str = "source"
) -> tuple[Circuit, tuple[str, ...]]:
    """A random circuit: layers of rotations about seeded random axes, then CZ along a seeded random perfect matching.

    On a chain or cycle the layers take the even and the odd edges in turn; the seed draws which come first.

    Args:
        qubits: Width q; the matching leaves one qubit out where q is odd.
        layers: Number of layers L.
        rotations: Rotations in a row on each qubit of a layer; neighbours have different axes.
        seed: Of the axes and matchings.
        entangler: "source", "chain" or "cycle".

    Returns:
        The circuit and its L·q·rotations data symbols in order of layer, qubit, rotation.

    Example:
        >>> circuit, angles = random_rotations(4, 2, 3, seed=0)
        >>> len(angles), circuit.n_2qb_gates()
        (24, 4)
    """
    random = np.random.default_rng(seed)
    circuit, angles = Circuit(qubits), list[str]()
    turn = 0 if entangler == "source" else int(random.integers(2))
    for layer in range(layers):
        for qubit in range(qubits):
            axis = ""
            for rotation in range(rotations):
                axis = str(random.choice([a for a in "XYZ" if a != axis]))
                angles.append(f"a_{layer}_{qubit}_{rotation}")
                circuit.add_gate(_ROTATIONS[axis], _radians(angles[-1]), [qubit])
        if entangler == "source":
            order = random.permutation(qubits)
            pairs = tuple((int(a), int(b)) for a, b in zip(order[0::2], order[1::2], strict=False))
        else:
            pairs = matching(qubits, entangler, layer + turn)
        for first, second in pairs:
            circuit.CZ(first, second)
    return circuit, tuple(angles)


def offset_entangler(
    circuit: Circuit, blocks: int, offsets: int, prefix: str, *, lead: bool = True, entangler: str = "source"
) -> tuple[str, ...]:
    """Append the PQC of Kim et al. (2025): M blocks of, for c = 1..C and every i.

    CNOT(i → i+c mod Q) and RY on the target. On a chain or cycle every offset is 1, forwards for odd c and backwards for
    even c, and a chain's end that is no target is rotated without a CNOT: the angles are as many.

    Args:
        circuit: Circuit to extend, Q qubits.
        blocks: Number of blocks M.
        offsets: Largest offset C; a source's offsets that are multiples of Q have no pair, and rotate only.
        prefix: Of the weight symbols' names.
        lead: Start with RY on every qubit, which makes Q(MC + 1) angles.
        entangler: "source", "chain" or "cycle".

    Returns:
        The weight symbols in order.

    Example:
        >>> len(offset_entangler(Circuit(4), blocks=2, offsets=2, prefix="w"))
        20
        >>> len(offset_entangler(Circuit(4), blocks=2, offsets=2, prefix="w", entangler="chain"))
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
            if entangler == "source":
                pairs = [(control, (control + offset) % qubits) for control in range(qubits)]
            else:
                pairs = [pair if offset % 2 else pair[::-1] for pair in neighbours(qubits, entangler)]
                free = set(range(qubits)) - {target for _, target in pairs}
                pairs.extend((qubit, qubit) for qubit in sorted(free))
            for control, target in pairs:
                if target != control:
                    circuit.CX(control, target)
                rotate(target)
    return tuple(weights)


def ring_ansatz(qubits: int, layers: int, entangler: str = "source") -> tuple[Circuit, tuple[str, ...]]:
    """The adapter's circuit (Roh et al. 2025): layers of RY, RZ on every qubit, a CNOT ring, RY on every qubit.

    On a chain the ring's closing CNOT is left out; on a chain or cycle even edges come before odd ones.

    Raises:
        CircuitError: The entangler is unknown.

    Example:
        >>> len(ring_ansatz(4, 2)[1])
        24
    """
    circuit, weights = Circuit(qubits), list[str]()
    ring = [(qubit, (qubit + 1) % qubits) for qubit in range(qubits if qubits > 1 else 0)]
    pairs = ring if entangler == "source" else neighbours(qubits, entangler)
    for layer in range(layers):
        for kind, gate in (("ry", OpType.Ry), ("rz", OpType.Rz), ("cx", None), ("rf", OpType.Ry)):
            if gate is None:
                for control, target in pairs:
                    circuit.CX(control, target)
                continue
            for qubit in range(qubits):
                weights.append(f"{kind}_{layer}_{qubit}")
                circuit.add_gate(gate, _radians(weights[-1]), [qubit])
    return circuit, tuple(weights)


def angle_encoding(circuit: Circuit, names: tuple[str, ...]) -> None:
    """Append RY(x_i) on qubit i for every named data symbol, in radians."""
    for qubit, name in enumerate(names):
        circuit.Ry(_radians(name), qubit)
