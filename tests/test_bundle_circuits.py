"""Circuits of a bundle: pytket reads the JSON and Qiskit the OpenQASM, both the same unitary as the template."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from pytket.circuit import Circuit, OpType
from qiskit import qasm3 as reader
from qiskit.quantum_info import Operator
from sympy import Symbol, pi, sin

from qcascade.bundle.circuit_files import circuit_files, qasm3
from qcascade.bundle.manifest import CircuitEntry
from qcascade.circuits.ansatze import position_mixer, random_rotations
from qcascade.kernels import AmplitudeAttentionPooling, QuantumKernel, RandomCircuitEmbedding, ReuploadingHead
from qcascade.kernels.adapter import AmplitudeAdapter
from qcascade.kernels.head import reuploading_template
from qcascade.targets import get_target

KERNELS = {
    "attention": lambda: AmplitudeAttentionPooling(8, 2, 8, slots=2),
    "embedding": lambda: RandomCircuitEmbedding(50, 8, qubits=3, layers=2),
    "head": lambda: ReuploadingHead(8, 2, qubits=3, uploads=1),
    "adapter": lambda: AmplitudeAdapter(8, 4),
}


def unitary_by_pytket(circuit: Circuit, values: dict[str, float]) -> np.ndarray:
    bound = circuit.copy()
    bound.symbol_substitution({Symbol(name): value for name, value in values.items()})
    return bound.get_unitary()


def unitary_by_qiskit(text: str, values: dict[str, float]) -> np.ndarray:
    circuit = reader.loads(text)
    bound = circuit.assign_parameters({p: values.get(p.name, values.get(p.name[:-1])) for p in circuit.parameters})
    return np.asarray(Operator(bound.reverse_bits()).data)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float(abs(np.trace(first.conj().T @ second)) / len(first))


def values_of(circuit: Circuit) -> dict[str, float]:
    names = sorted(str(s) for s in circuit.free_symbols())
    return dict(zip(names, np.random.default_rng(0).uniform(-3, 3, len(names)), strict=True))


@pytest.mark.parametrize("name", KERNELS)
def test_both_formats_are_the_kernels_circuit(name: str) -> None:
    kernel: QuantumKernel = KERNELS[name]()
    entries, files = circuit_files(kernel, "a region/0", get_target("ideal"), {})
    assert [entry.name for entry in entries] == list(kernel.templates())
    for entry in entries:
        template = kernel.templates()[entry.name]
        assert entry.symbols == (*template.data, *template.weights) and entry.qubits == template.qubits
        assert entry.compiled is None and entry.designed.qasm is not None
        read = Circuit.from_dict(json.loads(files[entry.designed.pytket]))
        values = values_of(template.circuit)
        wanted = unitary_by_pytket(template.circuit, values)
        assert overlap(wanted, unitary_by_pytket(read, values)) == pytest.approx(1, abs=1e-9)
        assert overlap(wanted, unitary_by_qiskit(files[entry.designed.qasm].decode(), values)) == pytest.approx(
            1, abs=1e-9
        )


def test_compiled_circuits_load_their_state_and_keep_their_symbols() -> None:
    kernel = AmplitudeAttentionPooling(8, 2, 4, slots=2, layers=1)
    (entry,), files = circuit_files(kernel, "region", get_target("line-3"), {})
    assert entry.compiled is not None and entry.compiled.qasm is not None
    compiled = Circuit.from_dict(json.loads(files[entry.compiled.pytket]))
    names = {str(symbol) for symbol in compiled.free_symbols()}
    assert any(name.startswith("load_") for name in names)
    assert {name for name in names if not name.startswith("load_")} <= set(entry.symbols)
    values = values_of(compiled)
    by_pytket = unitary_by_pytket(compiled, values)
    assert overlap(by_pytket, unitary_by_qiskit(files[entry.compiled.qasm].decode(), values)) == pytest.approx(
        1, abs=1e-9
    )


def test_compiled_circuits_say_where_every_qubit_ends() -> None:
    template = reuploading_template(5, 1, 1, 2, 5)
    kernel = SimpleNamespace(templates=lambda: {"head": template})
    (entry,), files = circuit_files(kernel, "region", get_target("line-5"), {})  # type: ignore[arg-type]
    assert entry.compiled is not None and entry.compiled.qasm is not None and entry.measured is not None
    assert entry.nodes == tuple(range(5)) and sorted(entry.measured) == list(range(5))
    values = values_of(template.circuit)
    wanted = z_of_every_qubit(unitary_by_pytket(template.circuit, values))
    compiled = Circuit.from_dict(json.loads(files[entry.compiled.pytket]))
    text = files[entry.compiled.qasm].decode()
    for unitary in (unitary_by_pytket(compiled, values), unitary_by_qiskit(text, values)):
        found = z_of_every_qubit(unitary)
        assert [found[place] for place in entry.measured] == pytest.approx(wanted, abs=1e-9)
        assert entry.measured == (0, 1, 2, 3, 4) or found != pytest.approx(wanted, abs=1e-3)
    for nodes, measured in (((0, 1, 2, 3, 3), entry.measured), (entry.nodes, (0, 1, 2, 3, 3)), (None, entry.measured)):
        with pytest.raises(ValueError, match=r"each is needed once|a place in nodes"):
            CircuitEntry.model_validate({**entry.model_dump(), "nodes": nodes, "measured": measured})
    old = {key: value for key, value in entry.model_dump().items() if key not in ("nodes", "measured")}
    assert CircuitEntry.model_validate(old).measured is None


def z_of_every_qubit(unitary: np.ndarray) -> list[float]:
    """⟨Z⟩ of each qubit, the first one most significant, of what the unitary makes of |0…0⟩."""
    chances = (abs(unitary[:, 0]) ** 2).reshape((2,) * (len(unitary).bit_length() - 1))
    return [float(np.diff(-np.moveaxis(chances, qubit, 0).reshape(2, -1).sum(1))[0]) for qubit in range(chances.ndim)]


def test_circuits_that_kernels_share_are_written_once() -> None:
    known: dict[tuple[str, ...], object] = {}
    first, files = circuit_files(KERNELS["attention"](), "first", get_target("ideal"), known)  # type: ignore[arg-type]
    second, more = circuit_files(KERNELS["attention"](), "second", get_target("ideal"), known)  # type: ignore[arg-type]
    assert first == second and len(files) == 2 and not more


def test_gates_without_a_name_and_permutations_are_written_out() -> None:
    circuit = position_mixer(3, 1)[0]
    circuit.append(random_rotations(3, 1, 2, seed=1)[0])
    circuit.add_gate(OpType.TK1, [0.1, Symbol("t") / pi, 0.3], [1]).add_gate(OpType.ZZPhase, [Symbol("z") / pi], [0, 2])
    circuit.SWAP(0, 1)
    circuit.replace_SWAPs()
    text = qasm3(circuit)
    assert text is not None
    values = values_of(circuit)
    assert overlap(unitary_by_pytket(circuit, values), unitary_by_qiskit(text, values)) == pytest.approx(1, abs=1e-9)


def test_what_openqasm_has_no_form_for_has_no_file() -> None:
    assert qasm3(Circuit(1).Rx(sin(Symbol("a")), 0)) is None
    assert qasm3(Circuit(1).Rx(Symbol("a b"), 0)) is None
    assert qasm3(Circuit(1).Rx(Symbol("t_"), 0).Ry(Symbol("t"), 0)) is None
