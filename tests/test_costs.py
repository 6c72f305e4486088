"""Cost models against torch's counter, pytket's counts and closed forms."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from conftest import bert, text_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit, OpType, StatePreparationBox
from pytket.passes import AutoRebase, DecomposeBoxes
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import qcascade
from qcascade.circuits.ansatze import position_mixer, random_rotations
from qcascade.circuits.loading import loading_circuit
from qcascade.circuits.observables import one_and_two_body
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.cost_models.classical import complexity
from qcascade.cost_models.device import device_circuit
from qcascade.cost_models.loading import loading
from qcascade.cost_models.machine import Machine, this_machine
from qcascade.cost_models.quantum import circuit_costs
from qcascade.cost_models.transfer import transfer
from qcascade.facts import AttentionFacts
from qcascade.kernels import AmplitudeAttentionPooling
from qcascade.kernels.base import CircuitUse
from qcascade.targets import get_target

MODEL, INPUTS = bert().eval(), text_inputs(2, 16)


@pytest.mark.usefixtures("captured_once")
def test_total_flops_are_torchs_own() -> None:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        MODEL(**INPUTS)
    assert qcascade.plan(MODEL, INPUTS).summary.flops_total == counter.get_total_flops()


@pytest.mark.usefixtures("captured_once")
def test_attention_flops_in_closed_form() -> None:
    batch, length, width = *INPUTS["input_ids"].shape, 32
    region = qcascade.plan(MODEL, INPUTS)["bert.encoder.layer.0.attention"]
    assert region.flops == 4 * 2 * batch * length * width * width + 2 * 2 * batch * length * length * width
    assert region.complexity == "O(n²)"


class Joined(nn.Module):
    """One sequence beside another of a related length."""

    def __init__(self, times: int, more: int) -> None:
        super().__init__()
        self.layer, self.times, self.more = nn.Linear(4, 4), times, more

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x) + nn.functional.pad(y.repeat(1, self.times, 1), (0, 0, 0, self.more)))


@pytest.mark.parametrize(("times", "more", "growth"), [(2, 0, "O(n)"), (1, 3, None)])
def test_sequences_grow_together_and_what_does_not_fit_is_not_printed(
    times: int, more: int, growth: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("torch._subclasses.fake_tensor"), "handlers", [caplog.handler])
    model = Joined(times, more)
    plan = qcascade.plan(model, (torch.randn(2, 8, 4), torch.randn(2, (8 - more) // times, 4)))
    assert plan["layer"].complexity == growth
    assert "broadcast" not in caplog.text


@pytest.mark.usefixtures("captured_once")
def test_complexity_of_the_other_regions() -> None:
    plan = qcascade.plan(MODEL, INPUTS)
    assert plan["bert.encoder.layer.0.intermediate.dense"].complexity == "O(n)"
    assert plan["classifier"].complexity == "O(1)"


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(0, 10**6), st.integers(0, 10**4), st.integers(0, 100))
def test_complexity_of_any_polynomial(n: int, a: int, b: int, c: int) -> None:
    lengths = (n, 2 * n, 4 * n)
    counts = [a + b * m + c * m * m for m in lengths]
    shares = [c * (4 * n) ** 2, b * 4 * n]
    if counts[-1] == 0:
        assert complexity(lengths, counts) is None
    elif all(s == 0 or s > 1e-4 * counts[-1] for s in shares):  # far from the threshold
        assert complexity(lengths, counts) == ("O(n²)" if c else "O(n)" if b else "O(1)")


@pytest.mark.parametrize("qubits", [2, 3, 4, 5])
def test_loading_gates_are_pytkets(qubits: int) -> None:
    """A random complex state takes as many CNOTs as pytket's own preparation box."""
    state = torch.randn(2**qubits, dtype=torch.complex128)
    circuit = Circuit(qubits).add_gate(StatePreparationBox((state / state.norm()).numpy()), list(range(qubits)))
    DecomposeBoxes().apply(circuit)
    AutoRebase({OpType.CX, OpType.TK1}).apply(circuit)
    assert loading(
        CircuitTemplate(Circuit(qubits), (), (), amplitudes=True)
    ).two_qubit_gates == circuit.n_gates_of_type(OpType.CX)
    real = loading(CircuitTemplate(Circuit(qubits), (), (), amplitudes=True, real_amplitudes=True))
    assert real.two_qubit_gates == 2**qubits - 2


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("qubits", range(1, 9))
def test_depth_after_loading_is_pytkets(qubits: int, real: bool) -> None:
    ideal, loader = get_target("ideal"), loading_circuit(qubits, real=real)[0]
    template = CircuitTemplate(Circuit(qubits), (), (), amplitudes=True, real_amplitudes=real)
    assert device_circuit(template, ideal).two_qubit_depth == loader.depth_2q()
    assert loading(template).layers == tuple(_depth_of(loader, place) for place in range(qubits))
    random, body = np.random.default_rng(qubits), Circuit(qubits)
    for _ in range(4 * (qubits > 1)):
        body.CX(*(int(q) for q in random.permutation(qubits)[:2])).H(0)
    template = CircuitTemplate(body, (), (), amplitudes=True, real_amplitudes=real)
    loader.append(body)
    assert device_circuit(template, ideal).two_qubit_depth == loader.depth_2q()


def _depth_of(circuit: Circuit, place: int) -> int:
    """Layers of two-qubit gates up to the last on one qubit: those after it are dropped."""
    commands = circuit.get_commands()
    needed, kept = {circuit.qubits[place]}, Circuit(circuit.n_qubits)
    for command in reversed(commands):
        if needed & {*command.qubits}:
            needed |= {*command.qubits}
            kept.add_gate(command.op.type, command.op.params, command.qubits)
    return kept.depth_2q()


def test_circuit_counts_as_built() -> None:
    ideal = get_target("ideal")
    circuit, weights = position_mixer(5, 3)
    template = CircuitTemplate(circuit, (), weights, amplitudes=True)
    costs = circuit_costs(CircuitUse(template, 7, 1, 0, 32, 32), ideal)
    assert costs.circuit.loading_two_qubit_gates == 2 * (2**5 - 2)
    assert costs.circuit.two_qubit_gates == circuit.n_gates_of_type(OpType.CU1) + 60
    whole = loading_circuit(5, real=False)[0]
    whole.append(circuit)
    assert costs.circuit.two_qubit_depth == whole.depth_2q()
    assert costs.circuit.angles == 30 + 3 * 15 + 2 * 31  # a controlled phase is three rotations
    assert (costs.shots, costs.forward, costs.backward) == (625, 7, 7 * 2 * 137)
    circuit, angles = random_rotations(4, 2, 3, 0)
    template = CircuitTemplate(circuit, angles, (), measurement=Expectations(one_and_two_body(4)))
    costs = circuit_costs(CircuitUse(template, 1, 0, 24, 0, 30), ideal)
    assert (costs.settings, costs.circuit.angles, costs.shots, costs.forward) == (3, 24, 2500, 3)


def test_transfer_counts_amplitudes_weights_and_samples() -> None:
    facts = AttentionFacts(8, 2, 4, batch=3, sequence_length=5, max_length=16)
    costs = transfer(AmplitudeAttentionPooling.workload(facts, {"slots": 4}, seed=0))
    sets, weights = 2 * 4, (4 + 4 + 4) + (4 + 4 + 2)  # RY, RZ and pairs of two layers on four qubits
    assert costs.to_device == 4 * (3 * sets * 5 * 2 + sets * weights)
    assert costs.from_device == 4 * 3 * sets * 5


def test_profile_is_kept_and_a_broken_one_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCASCADE_CACHE_DIR", str(tmp_path))
    first = this_machine()
    (file,) = tmp_path.glob("machine-*.json")
    assert this_machine() == first
    file.write_text("{")
    assert this_machine().sizes == first.sizes
    assert json.loads(file.read_text())["threads"] == torch.get_num_threads()


def test_an_unwritable_cache_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QCASCADE_CACHE_DIR", str(tmp_path / "file"))
    assert this_machine().bytes_per_second > 0


@given(st.floats(1, 5000))
def test_rates_grow_between_their_sizes(size: float) -> None:
    machine = Machine("m", 1, (16, 64, 256), (1e9, 4e9, 9e9), 1e10, 1e-6, 1e9)
    assert 0 < machine.rate(size) <= 9e9
    assert machine.rate(size) <= machine.rate(size * 1.5) * (1 + 1e-9)


def test_bigger_regions_are_predicted_slower() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 4))
    plan = qcascade.plan(model, torch.randn(64, 64))
    assert plan["2"].seconds > plan["0"].seconds  # type: ignore[operator]
    assert all(r.seconds_training is None or r.seconds_training > r.seconds for r in plan.regions)  # type: ignore[operator]
