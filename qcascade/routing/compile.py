"""Compile a template for a target: symbolic in, symbolic out."""

from __future__ import annotations

from qiskit import transpile

from qcascade.circuits.angles import AngleCircuit, angle_circuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.errors import CircuitError
from qcascade.routing.compiled import CompiledTemplate
from qcascade.routing.emission import emit
from qcascade.routing.fidelity import predict
from qcascade.routing.flat import from_pytket, from_qiskit, to_pytket, to_qiskit
from qcascade.routing.problem import Placed, Problem
from qcascade.targets import Target


def compile_template(template: CircuitTemplate, target: Target) -> CompiledTemplate:
    """Compile."""
    source = angle_circuit(template)
    if target.qubits is None:
        depth = source.circuit.depth_2q()
        return CompiledTemplate(
            target,
            source,
            {q: q for q in range(template.qubits)},
            None,
            source.circuit.n_2qb_gates(),
            depth,
            None,
            "as it is",
        )
    flat = from_pytket(source.circuit)
    assert flat is not None
    problem = Problem(flat, source.measured, tuple(range(template.qubits)))
    placed = _transpiled(problem, target, 0)
    return _compiled(source, placed, target, "qiskit")


def _transpiled(problem: Problem, target: Target, seed: int) -> Placed:
    made = transpile(to_qiskit(problem.source), target=target.to_qiskit(), optimization_level=3, seed_transpiler=seed)
    flat = from_qiskit(made)
    if flat is None:
        raise CircuitError("an angle is no longer affine.")
    start = made.layout.initial_index_layout(filter_ancillas=True)
    end = made.layout.final_index_layout(filter_ancillas=True)
    return Placed(emit(flat, target), tuple(start), tuple(end[wire] for wire in problem.ends))


def _compiled(source: AngleCircuit, placed: Placed, target: Target, method: str) -> CompiledTemplate:
    nodes = sorted({*placed.circuit.used, *placed.start, *placed.end})
    flat, coefficients, constants = placed.circuit.separated(len(source.angles.constants))
    circuit, angles = to_pytket(flat, nodes), source.angles.then(coefficients, constants)
    prediction = predict(circuit, target, placed.end)
    place = {q.index[0]: k for k, q in enumerate(circuit.qubits)}
    made = AngleCircuit(
        circuit,
        angles,
        source.data,
        source.weights,
        source.loading,
        source.real_loading,
        tuple(place[n] for n in placed.end),
        source.measurement,
    )
    return CompiledTemplate(
        target,
        made,
        dict(enumerate(placed.start)),
        prediction.fidelity,
        placed.circuit.two_qubit_gates,
        placed.circuit.two_qubit_depth,
        prediction.duration,
        method,
    )
