"""Costs on targets: laws that break-even figures obey, prices by hand, limits held against the routed circuit."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import bert, text_inputs
from pytket.circuit import Circuit, OpType
from pytket.extensions.qiskit import AerBackend
from sympy import Symbol, pi

import qcascade
from qcascade import Limits
from qcascade.circuits.observables import one_and_two_body
from qcascade.circuits.template import CircuitTemplate, Expectations, PauliString
from qcascade.cost_models.base import Subject
from qcascade.cost_models.device import SEEDS
from qcascade.cost_models.hardware import Run, hardware_costs, price, shot_seconds
from qcascade.cost_models.machine import Machine
from qcascade.cost_models.place import Work, forecast
from qcascade.cost_models.quantum import circuit_costs, quantum_costs, subject_costs
from qcascade.cost_models.transfer import transfer_costs
from qcascade.dispatch.price import price as submitted_price
from qcascade.executors import Job, PytketExecutor
from qcascade.executors.base import Log
from qcascade.executors.mitigation import Mitigation, ReadoutInversion, ZeroNoiseExtrapolation, plan_of
from qcascade.facts import HeadFacts
from qcascade.kernels import ReuploadingHead
from qcascade.kernels.base import CircuitUse
from qcascade.report.units import seconds_text
from qcascade.routing import compile_template
from qcascade.targets import Gate, Price, QubitProperties, Target, get_target

MACHINE = Machine("m", 1, (16,), (1e9,), 1e9, 1e-6, 1e9)
MODEL, INPUTS = bert(num_hidden_layers=1), text_inputs()
LINE = [(q, q + 1) for q in range(6)]


def device(error: float = 4e-3, qubits: int = 7) -> Target:
    """A line of qubits, every figure known."""
    gates = [Gate(name, (q,), 2e-4, 3e-8) for name in ("sx", "x") for q in range(qubits)]
    gates += [Gate("rz", (q,), 0.0, 0.0) for q in range(qubits)]
    gates += [Gate("cz", pair, error, 7e-8) for edge in LINE for pair in (edge, edge[::-1])]
    properties = (QubitProperties(0.01, 1.5e-6, 3e-4, 2e-4),) * qubits
    return Target("line", "seven in a row", qubits, tuple(gates), properties, shot_overhead=2e-4, job_overhead=3.0)


def subject(target: Target, region_seconds: float = 1e9) -> Subject:
    facts, options = HeadFacts(16, 2, rows=5), {"qubits": 4, "uploads": 1}
    workload = ReuploadingHead.workload(facts, options, seed=0)
    return Subject(ReuploadingHead, options, facts, workload, region_seconds, target, MACHINE, 0)


def test_a_shot_at_break_even_takes_as_long_as_the_region() -> None:
    costs = hardware_costs(subject(device()))
    assert costs["break_even_shot_seconds"] is not None
    uses = subject_costs(subject(device()))
    shots = sum(u.forward * u.shots for u in uses)
    assert shots * costs["break_even_shot_seconds"] + 2 * 3.0 == pytest.approx(1e9)
    times = [u.circuit.duration for u in uses]
    assert costs["seconds_target"] == pytest.approx(
        6.0 + sum(u.forward * u.shots * (t + 2e-4) for u, t in zip(uses, times, strict=True))
    )
    assert costs["jobs_forward"] == costs["jobs_backward"] == 2


def test_no_shot_rate_pays_where_submitting_takes_longer() -> None:
    costs = hardware_costs(subject(device(), region_seconds=1.0))
    assert costs["break_even_shot_seconds"] is None
    assert costs["break_even"].startswith("no shot rate would pay: submitting takes 6 s, the region 1 s")


def test_a_device_at_the_break_even_error_reaches_one_half() -> None:
    error = hardware_costs(subject(device()))["break_even_two_qubit_error"]
    assert hardware_costs(subject(device(error)))["fidelity"] == pytest.approx(0.5, abs=0.01)


def test_no_error_helps_where_readout_alone_is_worse() -> None:
    poor = replace(device(), properties=(QubitProperties(0.4, 1e-6, 3e-4, 2e-4),) * 7)
    costs = hardware_costs(subject(poor))
    assert costs["break_even_two_qubit_error"] is None
    assert "no two-qubit error gives a fidelity of 0.5" in costs["break_even"]


def test_price_is_that_of_every_gate_shot_and_job() -> None:
    rates = Price(
        "HQC",
        per_job=1,
        per_circuit=5,
        per_one_qubit_gate=1 / 5000,
        per_two_qubit_gate=10 / 5000,
        per_measurement=5 / 5000,
    )
    target = replace(device(), price=rates)
    wanted = 0.0
    for use in subject(target).workload.circuits:
        circuit = compile_template(use.template, target, seeds=SEEDS).circuit.circuit
        ones = sum(circuit.n_gates_of_type(kind) for kind in {c.op.type for c in circuit} if kind.name in ("SX", "X"))
        assert isinstance(use.template.measurement, Expectations)  # of Z: one setting reads all
        read = {qubit for pauli in use.template.measurement.paulis for qubit, _ in pauli}
        shot = (ones + 10 * circuit.n_2qb_gates() + 5 * len(read)) / 5000
        wanted += 1 + use.bindings * (5 + 2500 * shot)
    costs = hardware_costs(subject(target))
    assert costs["price_forward"] == pytest.approx(wanted)
    assert costs["price_training"] > costs["price_forward"]
    assert costs["price_currency"] == "HQC"


def test_a_price_by_the_second_is_of_the_jobs_own_seconds_too() -> None:
    target = replace(device(), price=Price("USD", per_second=1.6))
    costs = hardware_costs(subject(target))
    assert costs["price_forward"] == pytest.approx(1.6 * costs["seconds_target"])
    assert costs["price_training"] == pytest.approx(1.6 * costs["seconds_target_training"])


@pytest.mark.parametrize("mitigation", [(), (ZeroNoiseExtrapolation((1, 3, 5)),)])
@pytest.mark.parametrize("paulis", [(((0, "Z"),),), one_and_two_body(2), (((0, "X"), (1, "Z")), ((1, "Y"),))])
def test_plan_forecast_and_journal_state_one_price(
    paulis: tuple[PauliString, ...], mitigation: tuple[Mitigation, ...]
) -> None:
    """H2-1's: HQC = 5 + C (N1q + 10 N2q + 5 Nm) / 5000, changes of frame free, preparations counted, of what is submitted."""
    trap = get_target("quantinuum_h2_1")
    gates = tuple(gate for gate in trap.gates if max(gate.qubits) < 3)
    trap = replace(trap, qubits=3, gates=gates, properties=trap.properties[:3])
    circuit = Circuit(2).Ry(Symbol("a") / pi, 0).Ry(Symbol("b") / pi, 1).CX(0, 1).Rz(0.3, 0).Rx(Symbol("c") / pi, 0)
    template = CircuitTemplate(circuit, (), ("a", "b", "c"), measurement=Expectations(paulis))
    executor = PytketExecutor(AerBackend(), 100, target=trap, mitigation=mitigation, compile_seeds=SEEDS)
    width = len(executor.prepare(template).angles.constants)
    tasks = executor.tasks([Job(template, np.zeros((1, width)))], Log(), executor.counted)
    wanted = 0.0
    for task in tasks:
        sizes = [len(gate.qubits) for gate in task.circuit.gates if gate.kind != OpType.Rz]
        wanted += 5 + 100 * (sizes.count(1) + 10 * sizes.count(2) + 5 * 2 * task.bits) / 5000
    planned = replace(circuit_costs(CircuitUse(template, 1, 0, 3, 0, 0), trap, plan_of(mitigation)), shots=100)
    assert price([Run(planned, planned.forward)], trap) == pytest.approx(wanted)
    assert forecast([Work(template, 1)], executor, gradients=False).price == pytest.approx(wanted)
    assert submitted_price(tasks, 100, trap) == pytest.approx(wanted)


def test_what_is_not_known_is_none() -> None:
    bare = replace(device(), properties=(), gates=tuple(replace(g, error=None, seconds=None) for g in device().gates))
    costs = hardware_costs(subject(bare))
    for field in ("fidelity", "seconds_target", "circuit_seconds", "price_forward", "break_even_two_qubit_error"):
        assert costs[field] is None
    assert quantum_costs(subject(bare))["two_qubit_gates"] > 0


@pytest.mark.usefixtures("captured_once")
def test_a_circuit_wider_than_the_target_is_kept() -> None:
    plan = qcascade.plan(MODEL, INPUTS, target=device(), kernels=["amplitude_attention_pooling"])
    assert plan.summary.offloaded == 0
    assert "needs 9 qubits; line has 7" in plan["bert.encoder.layer.0.attention"].reason


def test_shifted_circuits_count_in_bytes() -> None:
    bytes_ = transfer_costs(subject(device()))
    assert bytes_["bytes_to_device_training"] > 10 * bytes_["bytes_to_device"]


@pytest.mark.usefixtures("captured_once")
def test_limits_are_held_against_the_routed_circuit() -> None:
    options = {"reuploading_head": {"qubits": 6}}
    free = qcascade.plan(MODEL, INPUTS, kernels=options)["classifier"].candidates[0].costs
    plan = qcascade.plan(MODEL, INPUTS, target=device(), kernels=options)
    routed = plan["classifier"].candidates[0].costs
    assert routed.two_qubit_depth > free.two_qubit_depth
    assert 0 < routed.fidelity < 1
    limits = Limits(max_two_qubit_depth=free.two_qubit_depth)
    kept = qcascade.plan(MODEL, INPUTS, target=device(), kernels=options, limits=limits)["classifier"]
    assert f"needs a two-qubit depth of {routed.two_qubit_depth}" in kept.reason
    kept = qcascade.plan(MODEL, INPUTS, target=device(), kernels=options, limits=Limits(min_fidelity=0.999))
    assert re.search(r"its fidelity is 0\.\d+; min_fidelity=0\.999", kept["classifier"].reason)


@pytest.mark.usefixtures("captured_once")
def test_hardware_time_gives_both_times() -> None:
    plan = qcascade.plan(
        MODEL, INPUTS, target=device(), objective="hardware_time", kernels={"reuploading_head": {"qubits": 6}}
    )
    assert re.search(r"predicted at .* s on the target against .*s here", plan["classifier"].reason)
    assert "on the target:" not in str(plan)  # nothing is offloaded
    offloading = qcascade.plan(MODEL, INPUTS, target=device(), kernels={"reuploading_head": {"qubits": 6}})
    assert re.search(
        r"on the target: fidelity 0\.\d+; .* a circuit, .* forward, .* a training step in 4 jobs", str(offloading)
    )


def test_mitigation_is_in_the_costs() -> None:
    plain = subject(device())
    mitigated = replace(plain, mitigation=plan_of([ReadoutInversion(), ZeroNoiseExtrapolation((1, 3))]))
    before, after = quantum_costs(plain), quantum_costs(mitigated)
    assert after["circuits_forward"] == 2 * before["circuits_forward"]
    assert after["circuits_backward"] == 2 * before["circuits_backward"]
    assert after["shots"] == math.ceil(2500 * 2.5 / 0.98**2 - 1e-9)  # both ⟨Z⟩ of one qubit
    assert hardware_costs(mitigated)["seconds_target"] > 2 * 2.5 * (hardware_costs(plain)["seconds_target"] - 6.0)


def test_a_shot_is_as_long_as_mitigation_makes_it() -> None:
    asked = replace(subject(device()), mitigation=plan_of([ZeroNoiseExtrapolation((1, 3))]))
    forward = [Run(u, u.forward) for u in subject_costs(asked)]
    shot = shot_seconds(forward, asked.target)
    assert shot is not None
    costs = hardware_costs(asked)
    assert sum(run.shots for run in forward) * shot + 2 * 3.0 == pytest.approx(costs["seconds_target"])
    assert f"(on line {seconds_text(shot)}, 200 µs of it between shots)" in costs["break_even"]
