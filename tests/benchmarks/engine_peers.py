"""The candidates of `engine.py`: one circuit, written with each simulator's fastest sensible recipe.

The circuit is L layers of [RY(x_i) on every qubit i; RY(w), RZ(w) on every qubit; CNOT ring i → i + 1 mod q], measured in
⟨Z_i⟩ of every qubit. A candidate's `prepare(case, threads)` returns a step: forward, and gradients of the outputs contracted
with a fixed random cotangent, as (outputs [B, q], grad_x [B, q], grad_w [L, q, 2]); the gradients are None in a case without.
Compiling is part of `prepare`.
Inputs are float32 and states complex64 throughout. A step ends when its numbers are there, on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

Step = Callable[[], tuple[Any, Any, Any]]


@dataclass(frozen=True)
class Case:
    """A size of the circuit, and whether gradients are asked for."""

    qubits: int
    batch: int
    layers: int = 3
    gradients: bool = True

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs x [B, q], weights w [L, q, 2] and cotangent [B, q], the same in every process."""
        random = np.random.default_rng(0)
        x = random.uniform(-np.pi, np.pi, (self.batch, self.qubits))
        w = random.uniform(-np.pi, np.pi, (self.layers, self.qubits, 2))
        cotangent = random.normal(size=(self.batch, self.qubits))
        return x.astype(np.float32), w.astype(np.float32), cotangent.astype(np.float32)

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same as tensors, x and w as leaves."""
        x, w, cotangent = (torch.from_numpy(array.copy()) for array in self.arrays)
        return x.requires_grad_(), w.requires_grad_(), cotangent

    @property
    def signs(self) -> np.ndarray:
        """Eigenvalues of every Z: [2^q, q], qubit 0 the most significant bit."""
        bits = np.arange(2**self.qubits)[:, None] >> np.arange(self.qubits)[::-1]
        return (1 - 2 * (bits & 1)).astype(np.float32)


@dataclass(frozen=True)
class Candidate:
    """A simulator: how to prepare its step, what it imports, and which cases it takes part in."""

    prepare: Callable[[Case, int], Step]
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    gradients: bool = True
    forward: bool = False


CANDIDATES: dict[str, Candidate] = {}


def candidate(
    name: str, modules: tuple[str, ...], packages: tuple[str, ...], **kinds: bool
) -> Callable[[Callable[[Case, int], Step]], Callable[[Case, int], Step]]:
    """Enter a `prepare` under a name, with the modules to import first and the distributions to state."""

    def enter(prepare: Callable[[Case, int], Step]) -> Callable[[Case, int], Step]:
        CANDIDATES[name] = Candidate(prepare, modules, packages, **kinds)
        return prepare

    return enter


@candidate("qcascade", ("qcascade",), ("qcascade", "numba", "pytket"), forward=True)
def qcascade_layer(case: Case, threads: int) -> Step:
    """The public layer; angles in half-turns, so every symbol is divided by π.

    Its kernels are loaded on the first use of any layer: a layer of two qubits is used here, so that loading counts with
    the preparation, as the compiling of others does.
    """
    import sympy
    from pytket.circuit import Circuit

    import qcascade

    small = qcascade.QuantumLayer(
        Circuit(2).Ry(sympy.Symbol("x0"), 0).Ry(sympy.Symbol("w0"), 1).CX(0, 1), inputs=["x0"]
    )
    small(torch.zeros(1, 1, requires_grad=True)).sum().backward()
    inputs, weights = sympy.symbols(f"x:{case.qubits}"), iter(sympy.symbols(f"w:{case.layers * case.qubits * 2}"))
    circuit = Circuit(case.qubits)
    for _ in range(case.layers):
        for qubit, symbol in enumerate(inputs):
            circuit.Ry(symbol / sympy.pi, qubit)
        for qubit in range(case.qubits):
            circuit.Ry(next(weights) / sympy.pi, qubit).Rz(next(weights) / sympy.pi, qubit)
        for qubit in range(case.qubits):
            circuit.CX(qubit, (qubit + 1) % case.qubits)
    layer = qcascade.QuantumLayer(circuit, inputs=[str(symbol) for symbol in inputs])
    x, w, cotangent = case.tensors
    order = torch.tensor(
        [int(name[1:]) for name in layer.weight_names]
    )  # the layer's order is that of pytket's commands
    with torch.no_grad():
        layer.weights.copy_(w.flatten()[order])

    def forward() -> tuple[Any, Any, Any]:
        with torch.no_grad():
            return layer(x), None, None

    def step() -> tuple[Any, Any, Any]:
        outputs = layer(x)
        grad_x, grad_w = torch.autograd.grad(outputs, (x, layer.weights), cotangent)
        return outputs, grad_x, torch.empty_like(grad_w).index_copy_(0, order, grad_w).view_as(w)

    return step if case.gradients else forward


def tensorcircuit_circuit(case: Case, x: Any, w: Any) -> Any:
    """One sample's circuit; `set_backend` and `set_dtype` have been called."""
    import tensorcircuit

    circuit = tensorcircuit.Circuit(case.qubits)
    for layer in range(case.layers):
        for qubit in range(case.qubits):
            circuit.ry(qubit, theta=x[qubit])
        for qubit in range(case.qubits):
            circuit.ry(qubit, theta=w[layer, qubit, 0])
            circuit.rz(qubit, theta=w[layer, qubit, 1])
        for qubit in range(case.qubits):
            circuit.cnot(qubit, (qubit + 1) % case.qubits)
    return circuit


def jax_step(case: Case, state: Callable[[Any, Any], Any]) -> Step:
    """Step from a sample's state vector: vmap, vjp and jit. All ⟨Z⟩ as one product beats expectation by expectation."""
    import jax

    signs = jax.numpy.asarray(case.signs)

    def expectations(x: Any, w: Any) -> Any:
        amplitudes = state(x, w)
        return (jax.numpy.real(amplitudes) ** 2 + jax.numpy.imag(amplitudes) ** 2) @ signs

    return jax_gradients(case, jax.vmap(expectations, in_axes=(0, None)))


def jax_gradients(case: Case, batched: Callable[[Any, Any], Any]) -> Step:
    """Step from batched expectations: their vjp, compiled as a whole."""
    import jax

    def both(x: Any, w: Any, cotangent: Any) -> Any:
        outputs, pull = jax.vjp(batched, x, w)
        return outputs, *pull(cotangent)

    arrays = [jax.numpy.asarray(array) for array in case.arrays]
    compiled = jax.jit(both).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays))


@candidate("tensorcircuit-jax", ("jax", "tensorcircuit"), ("tensorcircuit-ng", "jax", "jaxlib"))
def tensorcircuit_jax(case: Case, threads: int) -> Step:
    """TensorCircuit-NG under jit."""
    import tensorcircuit

    tensorcircuit.set_backend("jax")
    tensorcircuit.set_dtype("complex64")
    return jax_step(case, lambda x, w: tensorcircuit_circuit(case, x, w).state())


@candidate("tensorcircuit-torch", ("tensorcircuit",), ("tensorcircuit-ng", "torch"))
def tensorcircuit_torch(case: Case, threads: int) -> Step:
    """TensorCircuit-NG on torch: `torch.func.vmap` over samples, eager."""
    import tensorcircuit

    backend = tensorcircuit.set_backend("pytorch")
    tensorcircuit.set_dtype("complex64")
    x, w, cotangent = case.tensors
    signs = torch.from_numpy(case.signs)

    def expectations(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        amplitudes = tensorcircuit_circuit(case, x, w).state()
        return (amplitudes.real**2 + amplitudes.imag**2) @ signs

    batched = backend.vmap(expectations, vectorized_argnums=0)

    def step() -> tuple[Any, Any, Any]:
        outputs = batched(x, w)
        return outputs, *torch.autograd.grad(outputs, (x, w), cotangent)

    return step


@candidate("qujax", ("jax", "qujax"), ("qujax", "jax", "jaxlib"))
def qujax(case: Case, threads: int) -> Step:
    """qujax under jit; its angles are in half-turns."""
    import jax
    import qujax

    gates: list[str] = []
    qubits: list[list[int]] = []
    parameters: list[list[int]] = []
    for layer in range(case.layers):
        for qubit in range(case.qubits):
            gates, qubits, parameters = [*gates, "Ry"], [*qubits, [qubit]], [*parameters, [qubit]]
        for qubit in range(case.qubits):
            first = case.qubits + 2 * (layer * case.qubits + qubit)
            gates, qubits = [*gates, "Ry", "Rz"], [*qubits, [qubit], [qubit]]
            parameters = [*parameters, [first], [first + 1]]
        for qubit in range(case.qubits):
            gates, qubits = [*gates, "CX"], [*qubits, [qubit, (qubit + 1) % case.qubits]]
            parameters = [*parameters, []]
    state = qujax.get_params_to_statetensor_func(gates, qubits, parameters)
    join = jax.numpy.concatenate
    return jax_step(case, lambda x, w: state(join([x, w.reshape(-1)]) / jax.numpy.pi).reshape(-1))


def pennylane_operations(case: Case, x: Any, w: Any) -> list[Any]:
    """The circuit's operations; x [q] or, broadcast, [B, q]."""
    import pennylane as qml

    operations: list[Any] = []
    for layer in range(case.layers):
        operations += [qml.RY(x[..., qubit], qubit) for qubit in range(case.qubits)]
        for qubit in range(case.qubits):
            operations += [qml.RY(w[layer, qubit, 0], qubit), qml.RZ(w[layer, qubit, 1], qubit)]
        operations += [qml.CNOT([qubit, (qubit + 1) % case.qubits]) for qubit in range(case.qubits)]
    return operations


@candidate("pennylane-default", ("pennylane",), ("pennylane", "torch"))
def pennylane_default(case: Case, threads: int) -> Step:
    """default.qubit with torch: backpropagation and parameter broadcasting.

    It starts from complex128 zeros; preparing |0…0⟩ from complex64 is what keeps it in single precision (1.2–1.7 times
    faster).
    """
    import pennylane as qml

    x, w, cotangent = case.tensors
    zero = torch.zeros(2**case.qubits, dtype=torch.complex64)
    zero[0] = 1

    @qml.qnode(qml.device("default.qubit", wires=case.qubits), interface="torch", diff_method="backprop", cache=False)
    def circuit(x: torch.Tensor, w: torch.Tensor) -> list[Any]:
        qml.StatePrep(zero, wires=range(case.qubits), validate_norm=False)
        pennylane_operations(case, x, w)
        return [qml.expval(qml.Z(qubit)) for qubit in range(case.qubits)]

    def step() -> tuple[Any, Any, Any]:
        outputs = torch.stack(circuit(x, w), -1)
        return outputs, *torch.autograd.grad(outputs, (x, w), cotangent.to(outputs.dtype))

    return step


@candidate("pennylane-default-jax", ("jax", "pennylane"), ("pennylane", "jax", "jaxlib"))
def pennylane_default_jax(case: Case, threads: int) -> Step:
    """default.qubit under jax.jit: far faster than with torch, so it is here too."""
    import jax
    import pennylane as qml

    @qml.qnode(qml.device("default.qubit", wires=case.qubits), interface="jax", diff_method="backprop", cache=False)
    def circuit(x: Any, w: Any) -> list[Any]:
        pennylane_operations(case, x, w)
        return [qml.expval(qml.Z(qubit)) for qubit in range(case.qubits)]

    return jax_gradients(case, lambda x, w: jax.numpy.stack(circuit(x, w), -1))


@candidate("pennylane-lightning", ("pennylane", "pennylane_lightning.lightning_qubit"), ("pennylane-lightning",))
def pennylane_lightning(case: Case, threads: int) -> Step:
    """lightning.qubit, adjoint: one vector-Jacobian product a sample, asked of the device itself.

    A QNode is 1.4–2.4 times slower; batch_obs and a thread per part of the batch gain nothing (the latter for the GIL).
    """
    import pennylane as qml
    from pennylane.devices import ExecutionConfig

    device = qml.device("lightning.qubit", wires=case.qubits, c_dtype=np.complex64)
    config = ExecutionConfig(gradient_method="adjoint", use_device_gradient=True, use_device_jacobian_product=True)
    x, w, cotangent = case.arrays
    cotangents = [tuple(row) for row in cotangent.tolist()]

    def step() -> tuple[Any, Any, Any]:
        measured = [qml.expval(qml.Z(qubit)) for qubit in range(case.qubits)]
        tapes = [qml.tape.QuantumScript(pennylane_operations(case, sample, w), measured) for sample in x]
        outputs, products = device.execute_and_compute_vjp(tapes, cotangents, config)
        gradients = np.asarray(products).reshape(case.batch, case.layers, 3 * case.qubits)
        grad_x, grad_w = gradients[..., : case.qubits].sum(1), gradients[..., case.qubits :].sum(0)
        return np.asarray(outputs), grad_x, grad_w.reshape(w.shape)

    return step


@candidate("torchquantum", ("torchquantum",), ("torchquantum-ng", "torch"))
def torchquantum(case: Case, threads: int) -> Step:
    """TorchQuantum-ng: batched states, its functional gates (bmm, the default; einsum is no faster)."""
    import torchquantum as tq
    from torchquantum import functional as gates

    x, w, cotangent = case.tensors

    def step() -> tuple[Any, Any, Any]:
        device = tq.QuantumDevice(n_wires=case.qubits, bsz=case.batch)
        for layer in range(case.layers):
            for qubit in range(case.qubits):
                gates.ry(device, wires=qubit, params=x[:, qubit])
            for qubit in range(case.qubits):
                gates.ry(device, wires=qubit, params=w[layer, qubit, 0])
                gates.rz(device, wires=qubit, params=w[layer, qubit, 1])
            for qubit in range(case.qubits):
                gates.cnot(device, wires=[qubit, (qubit + 1) % case.qubits])
        outputs = tq.measurement.expval(device, list(range(case.qubits)), [tq.PauliZ()] * case.qubits)
        return outputs, *torch.autograd.grad(outputs, (x, w), cotangent)

    return step


@candidate("aer", ("qiskit_aer",), ("qiskit-aer", "qiskit"), gradients=False, forward=True)
def aer(case: Case, threads: int) -> Step:
    """Aer's statevector method in single precision, forward only.

    The weights are numbers before it transpiles, and transpiling is not timed. One run binds all samples; probabilities
    come back and are reduced here, which takes as long as save_expectation_value on four threads and less on one.
    """
    from qiskit import QuantumCircuit, transpile
    from qiskit.circuit import ParameterVector
    from qiskit_aer import AerSimulator

    x, w, _ = case.arrays
    symbols = ParameterVector("x", case.qubits)
    circuit = QuantumCircuit(case.qubits)
    for layer in range(case.layers):
        for qubit in range(case.qubits):
            circuit.ry(symbols[qubit], qubit)
        for qubit in range(case.qubits):
            circuit.ry(float(w[layer, qubit, 0]), qubit)
            circuit.rz(float(w[layer, qubit, 1]), qubit)
        for qubit in range(case.qubits):
            circuit.cx(qubit, (qubit + 1) % case.qubits)
    circuit.save_probabilities()
    options = {"max_parallel_threads": threads, "max_parallel_experiments": threads}
    simulator = AerSimulator(method="statevector", precision="single", **options)
    circuit = transpile(circuit, simulator)
    binds = [{symbols[qubit]: x[:, qubit].tolist() for qubit in range(case.qubits)}]

    def z_of_all(probabilities: np.ndarray) -> list[float]:
        halves = (probabilities.reshape(-1, 2, 2**qubit).sum((0, 2)) for qubit in range(case.qubits))
        return [float(zero - one) for zero, one in halves]

    def step() -> tuple[Any, Any, Any]:
        result = simulator.run([circuit], parameter_binds=binds).result()
        assert result.success, result.status
        rows = [z_of_all(np.asarray(result.data(sample)["probabilities"])) for sample in range(case.batch)]
        return np.asarray(rows), None, None

    return step


def allow_torchquantum() -> None:
    """Declare two operators that torchvision expects of its own kernels.

    torchquantum imports torchvision for its data sets. A torchvision built for CUDA cannot load its kernels beside a CPU
    torch, and then fails on import for want of these names. No benchmark calls them.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    globals()["_torchvision"] = library  # the declarations last as long as this object


def load(name: str) -> None:
    """Import what a candidate needs."""
    import importlib

    if name == "torchquantum":
        allow_torchquantum()
    for module in CANDIDATES[name].modules:
        importlib.import_module(module)
