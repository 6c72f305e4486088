"""Route any pytket circuit to a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sympy
from pytket.circuit import Bit, Circuit, Node, OpType, Qubit
from pytket.passes import DecomposeBoxes
from qiskit import ClassicalRegister, QuantumCircuit
from sympy import Symbol

from qcascade.circuits.angles import AngleMap, angle_circuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import CircuitError
from qcascade.routing.flat import Flat, to_pytket, to_qiskit
from qcascade.routing.methods import prediction
from qcascade.routing.portfolio import Attempt
from qcascade.routing.problem import Keep, Options, Placed, Problem
from qcascade.routing.simplify import flattened
from qcascade.routing.solve import solve
from qcascade.routing.summary import routed_text
from qcascade.routing.verify import Proof
from qcascade.targets import Target, get_target

_UNCHANGED = Proof(True, "the circuit itself; the target has no limits")
_KEPT = ("outcomes", "state", "unitary")


@dataclass(frozen=True, eq=False)
class RoutedCircuit:
    """A circuit in native gates on a target's qubits.

    Args:
        circuit: On ``Node(i)``, i being the target's qubit; measurements as in the source, on the same bits.
        fidelity: Predicted, readout and idle decoherence included (of every qubit where the circuit measures none);
            None where the target is not calibrated.
        two_qubit_gates: Native two-qubit gates.
        two_qubit_depth: Layers of them.
        duration: Seconds of one run with its readout; None where unknown.
        placement: Where each of the source's qubits starts.
        final: Where it ends.
        method: What found it.
        target: What it is compiled for.
        attempts: What every way reached.
        verified: True where simulation has proven it equal to its source; False where it is too wide to simulate; None
            where verification was not asked for.
        proof: The same in words, with the number of wires.
    """

    circuit: Circuit
    fidelity: float | None
    two_qubit_gates: int
    two_qubit_depth: int
    duration: float | None
    placement: Mapping[Qubit, Node]
    final: Mapping[Qubit, Node]
    method: str
    target: Target = field(repr=False)
    attempts: tuple[Attempt, ...] = field(repr=False)
    verified: bool | None = None
    proof: str = ""

    def __str__(self) -> str:
        return routed_text(self)

    def to_qiskit(self) -> QuantumCircuit:
        """The same circuit for Qiskit, as wide as the target; for circuits without symbols."""
        found = None if self.circuit.free_symbols() else flattened(_parts(self.circuit).gates, ())
        if found is None:
            raise CircuitError("the circuit has symbols; bind them before it goes to Qiskit.")
        nodes = {number: qubit.index[0] for number, qubit in enumerate(self.circuit.qubits)}
        made = to_qiskit(found[0].moved(nodes, self.target.qubits or len(nodes)))
        if bits := self.circuit.bits:
            made.add_register(ClassicalRegister(len(bits), "c"))
        for command in self.circuit.get_commands():
            if command.op.type == OpType.Measure:
                made.measure(command.qubits[0].index[0], bits.index(command.bits[0]))
        return made


def route(
    circuit: Circuit,
    target: str | Path | Target,
    *,
    seeds: int = 10,
    seconds: float | None = None,
    workers: int | None = None,
    preserve: Keep | None = None,
    verify: bool = True,
    cache: bool = True,
) -> RoutedCircuit:
    """The circuit in native gates on the best qubits of a target, by the portfolio's best way.

    The circuit starts from |0…0⟩. Measurements at its end are kept; barriers are dropped. Symbols are allowed and stay.

    Args:
        circuit: Unitary gates, measurements at the end.
        target: A name, the path of a JSON file, or a Target.
        seeds: Seeds of every method that has any.
        seconds: Time budget; the best so far is returned, and one method always runs to its end. None: no limit.
        workers: Processes at most; None: the cores there are.
        preserve: What has to stay the same: "outcomes" of the measurements (the default where there are any), the
            "state" that |0…0⟩ becomes (the default where there are none), or the "unitary" up to a global phase.
        verify: Prove by simulation that the result is equal to the circuit, where it is narrow enough to simulate;
            `verified` and `proof` of the result say whether it is.
        cache: Look up and keep the result on disk.

    Raises:
        TargetError: The circuit is wider than the target's largest connected part, or its gates are not supported.
        CircuitError: It is no circuit, measures or controls classically before its end, or no method can route it.

    Example:
        >>> from qcascade.targets import Gate, QubitProperties
        >>> gates = [Gate(name, (q,), 1e-4) for q in range(3) for name in ("sx", "rz")]
        >>> gates += [Gate("cz", (0, 1), 8e-3), Gate("cz", (1, 2), 4e-3)]
        >>> line = Target("line", "three qubits in a row", 3, tuple(gates), (QubitProperties(0.01),) * 3)
        >>> routed = route(Circuit(2).H(0).CX(0, 1).measure_all(), line, seeds=2, workers=1)
        >>> routed.two_qubit_gates, sorted(node.index[0] for node in routed.placement.values())
        (1, [1, 2])
    """
    options = Options(seeds, seconds, workers, verify, cache)
    device = get_target(target)
    if not isinstance(circuit, Circuit):
        raise CircuitError(
            f"circuit is {type(circuit).__name__}; pass a pytket Circuit, or a file to the command qcascade route."
        )
    parts = _parts(circuit)
    if preserve not in (None, *_KEPT):
        raise CircuitError(f"preserve is {preserve!r}; {', '.join(_KEPT)} or None are accepted.")
    keep: Keep = preserve or ("outcomes" if parts.bits else "state")
    flat, ends, angles = _numbered(parts)
    bits = parts.bits
    if keep == "outcomes" and not bits:
        raise CircuitError(
            "preserve is 'outcomes', but the circuit has no measurements. Add them, or keep the 'state'."
        )
    problem = Problem(flat, ends, tuple(sorted(bits)) or tuple(range(flat.width)), keep)
    if device.qubits is None:
        everywhere = tuple(range(flat.width))
        return _routed(
            circuit, Placed(flat, everywhere, ends), problem, device, angles, bits, "as it is", (), _UNCHANGED
        )
    outcome, proof = solve(problem, device, options)
    return _routed(circuit, outcome.placed, problem, device, angles, bits, outcome.method, outcome.attempts, proof)


def _routed(
    source: Circuit,
    placed: Placed,
    problem: Problem,
    target: Target,
    angles: AngleMap | None,
    bits: Mapping[int, Bit],
    method: str,
    attempts: tuple[Attempt, ...],
    proof: Proof,
) -> RoutedCircuit:
    nodes = sorted({*placed.circuit.used, *placed.start, *placed.end})
    made = to_pytket(placed.circuit, nodes, None if angles is None else list(_expressions(angles)))
    for bit in source.bits:
        made.add_bit(bit)
    for logical, bit in sorted(bits.items()):
        made.Measure(Node(placed.end[logical]), bit)
    predicted = None if target.qubits is None else prediction(placed, problem, target)
    return RoutedCircuit(
        made,
        None if predicted is None else predicted.fidelity,
        placed.circuit.two_qubit_gates,
        placed.circuit.two_qubit_depth,
        None if predicted is None else predicted.duration,
        dict(zip(source.qubits, map(Node, placed.start), strict=True)),
        dict(zip(source.qubits, map(Node, placed.end), strict=True)),
        method,
        target,
        attempts,
        proof.verified,
        proof.reason,
    )


@dataclass(frozen=True)
class _Parts:
    """A circuit taken apart: gates, which wire each qubit ends on, and which logical qubit is read into which bit."""

    gates: Circuit
    ends: tuple[int, ...]
    bits: dict[int, Bit]


def _parts(circuit: Circuit) -> _Parts:
    body = circuit.copy()
    DecomposeBoxes().apply(body)
    gates, read = Circuit(), dict[Qubit, Bit]()
    for qubit in circuit.qubits:
        gates.add_qubit(qubit)
    for command in body.get_commands():
        kind = command.op.type
        if kind in (OpType.Barrier, OpType.noop):
            continue
        if any(qubit in read for qubit in command.qubits):
            raise CircuitError(
                f"{command} follows a measurement of its qubit; measurements are accepted at the end only."
            )
        if kind == OpType.Measure:
            if command.bits[0] in read.values():
                raise CircuitError(f"{command} writes a bit that has been written; each may be written once.")
            read[command.qubits[0]] = command.bits[0]
        elif len(command.args) > len(command.qubits) or kind in (OpType.Reset, OpType.Collapse, OpType.Conditional):
            raise CircuitError(
                f"{command} is a reset or classical control; only gates and measurements at the end are routed."
            )
        else:
            gates.add_gate(command.op, command.qubits)
    wires = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    came = {wires[end]: wires[start] for start, end in body.implicit_qubit_permutation().items()}
    ends = tuple(came[q] for q in range(len(wires)))
    return _Parts(gates, ends, {ends.index(wires[qubit]): bit for qubit, bit in read.items()})


def _numbered(parts: _Parts) -> tuple[Flat, tuple[int, ...], AngleMap | None]:
    """As a flat circuit: gates, where each qubit ends, and what its variables stand for, if there are any."""
    symbols = sorted(str(s) for s in parts.gates.free_symbols())
    angles, circuit, ends = None, parts.gates, parts.ends
    if symbols:
        made = angle_circuit(CircuitTemplate(circuit, tuple(symbols), ()))
        angles, circuit, ends = made.angles, made.circuit, tuple(made.measured[wire] for wire in ends)
    found = flattened(circuit, ends)
    if found is None:
        raise CircuitError("an angle is not affine in its own symbol.")
    return *found, angles


def _expressions(angles: AngleMap) -> Iterator[Any]:
    """The sympy expression of each angle, in radians."""
    symbols = [Symbol(name) for name in angles.symbols]
    for number, (row, constant) in enumerate(zip(angles.coefficients, angles.constants, strict=True)):
        total = sympy.Float(float(constant))
        for place in np.flatnonzero(row):
            total += sympy.Float(float(row[place])) * symbols[place]
        for factors, expression in angles.curved:
            total += sympy.Float(float(factors[number])) * expression
        yield total
