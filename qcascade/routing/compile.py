"""Compile a template for a target: symbolic in, symbolic out, every angle affine."""

from __future__ import annotations

from qcascade.circuits.angles import AngleCircuit, angle_circuit
from qcascade.circuits.template import CircuitTemplate, Measurement, Probabilities
from qcascade.errors import CircuitError
from qcascade.routing.compiled import CompiledTemplate
from qcascade.routing.flat import from_pytket, to_pytket
from qcascade.routing.methods import prediction
from qcascade.routing.problem import Keep, Options, Placed, Problem
from qcascade.routing.solve import solve
from qcascade.targets import Target


def compile_template(
    template: CircuitTemplate,
    target: Target,
    *,
    seeds: int = 10,
    seconds: float | None = None,
    workers: int | None = None,
    verify: bool = True,
    cache: bool = True,
) -> CompiledTemplate:
    """The template in native gates of the target, by the portfolio's best way.

    Where the template measures in the computational basis only, gates that no outcome depends on are left out.

    Args:
        template: What to compile; its amplitudes are loaded by gates.
        target: Where to. A target without limits takes the angle circuit as it is.
        seeds: Seeds of every method that has any.
        seconds: Time budget; None: no limit.
        workers: Processes at most; None: the cores there are.
        verify: Prove by simulation that the compiled circuit is equal to its source.
        cache: Look up and keep the result on disk.

    Raises:
        TargetError: The template is wider than the target's largest connected part, or its gates are not supported.
        CircuitError: No method can route it, or an option is out of range.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from sympy import Symbol, pi
        >>> from qcascade.targets import get_target
        >>> template = CircuitTemplate(Circuit(2).Ry(Symbol("x") / pi, 0).CX(0, 1), ("x",), ())
        >>> compile_template(template, get_target("ideal")).two_qubit_gates
        1
    """
    options = Options(seeds, seconds, workers, verify, cache)
    source = angle_circuit(template)
    flat = from_pytket(source.circuit)
    if flat is None:
        raise CircuitError("an angle of the template is not affine in its own symbol.")
    if target.qubits is None:
        place = {qubit: qubit for qubit in range(template.qubits)}
        return CompiledTemplate(
            target, source, place, None, flat.two_qubit_gates, flat.two_qubit_depth, None, "as it is"
        )
    problem = Problem(flat, source.measured, tuple(range(template.qubits)), _kept(template.measurement))
    outcome, _ = solve(problem, target, options)
    return _compiled(source, problem, outcome.placed, target, outcome.method)


def _kept(measurement: Measurement) -> Keep:
    if isinstance(measurement, Probabilities):
        return "outcomes"
    return "outcomes" if all(axis == "Z" for pauli in measurement.paulis for _, axis in pauli) else "state"


def _compiled(source: AngleCircuit, problem: Problem, placed: Placed, target: Target, method: str) -> CompiledTemplate:
    flat, coefficients, constants = placed.circuit.separated(len(source.angles.constants))
    circuit = to_pytket(flat, sorted({*flat.used, *placed.start, *placed.end}))
    place = {qubit.index[0]: number for number, qubit in enumerate(circuit.qubits)}
    made = AngleCircuit(
        circuit,
        source.angles.then(coefficients, constants),
        source.data,
        source.weights,
        source.loading,
        source.real_loading,
        tuple(place[node] for node in placed.end),
        source.measurement,
    )
    predicted = prediction(placed, problem, target)
    return CompiledTemplate(
        target,
        made,
        dict(enumerate(placed.start)),
        predicted.fidelity,
        flat.two_qubit_gates,
        flat.two_qubit_depth,
        predicted.duration,
        method,
    )
