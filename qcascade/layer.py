"""Any symbolic pytket circuit as a trainable, batched torch layer.

Symbols named as inputs are bound to an example's values, every other symbol is a trained weight; what comes out are
expectation values or outcome probabilities, exactly simulated, with adjoint gradients for weights, inputs and initial
states (Jones and Gacon 2020, arXiv 2009.02823).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, TypeAlias

import sympy
import torch
from pytket.circuit import Circuit
from pytket.pauli import Pauli, QubitPauliString
from torch import Tensor, nn

from qcascade.circuits.observables import single_z
from qcascade.circuits.template import CircuitTemplate, Expectations, PauliString, Probabilities
from qcascade.engine import lower
from qcascade.errors import CircuitError, ExecutionError
from qcascade.executors import Executor, make_executor, measured

if TYPE_CHECKING:  # pytket.utils imports scipy.stats, a second
    from pytket.utils.operators import QubitPauliOperator

Observable: TypeAlias = "str | QubitPauliString | QubitPauliOperator"


class QuantumLayer(nn.Module):
    """A circuit as a layer.

    Args:
        circuit: Any unitary pytket circuit, its angles symbolic where they are to be set. It is copied.
        inputs: Names of the symbols bound to the columns of x, in order.
        observables: What to measure: Pauli words such as "ZIX" (one letter a qubit), pytket `QubitPauliString`s, or
            `QubitPauliOperator`s with real coefficients. By default Z on every qubit.
        measure: "expectation", or "probabilities" of the 2^q outcomes (qubit 0 is the most significant bit).
        initial_state: Whether `forward` also takes the amplitudes that the circuit starts from.

    Attributes:
        weights: Parameter [W] with the values of all other symbols, in the circuit's unit (half-turns for pytket's
            gates); starts uniform in (−1, 1).
        weight_names: Their names, in order of first appearance in the circuit.

    Raises:
        CircuitError: The circuit is not unitary, an input is not a symbol of it, or an observable does not fit it.

    Example:
        >>> from sympy import symbols
        >>> x, w = symbols("x w")
        >>> layer = QuantumLayer(Circuit(2).Ry(x, 0).CX(0, 1).Ry(w, 1), inputs=["x"])
        >>> layer(torch.rand(5, 1)).shape
        torch.Size([5, 2])
    """

    executor: Executor | None = None  # None: simulated exactly

    def __init__(
        self,
        circuit: Circuit,
        inputs: Sequence[str],
        observables: Sequence[Observable] | None = None,
        measure: str = "expectation",
        initial_state: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(circuit, Circuit):
            raise CircuitError(f"circuit is {type(circuit).__name__}; pass a pytket Circuit.")
        names = tuple(str(name) for name in inputs)
        appearing = _symbols_in_order(circuit)
        if absent := [name for name in names if name not in appearing]:
            raise CircuitError(
                f"inputs {', '.join(absent)} are no symbols of the circuit; it has {', '.join(appearing) or 'none'}."
            )
        if len(set(names)) < len(names):
            raise CircuitError("an input is named twice; name every symbol once.")
        if measure not in ("expectation", "probabilities"):
            raise CircuitError(f"measure={measure!r} is unknown; choose 'expectation' or 'probabilities'.")
        if measure == "probabilities" and observables is not None:
            raise CircuitError("observables are given and measure='probabilities'; give one of the two.")
        self.inputs, self.initial_state = names, initial_state
        self.weight_names = tuple(name for name in appearing if name not in names)
        paulis, matrix = _observables(circuit, observables)
        measured = Expectations(paulis) if measure == "expectation" else Probabilities()
        self.template = CircuitTemplate(circuit.copy(), names, self.weight_names, initial_state, measurement=measured)
        self._program = lower(self.template)
        self.weights = nn.Parameter(torch.empty(len(self.weight_names)).uniform_(-1, 1))
        self.register_buffer("_combine", matrix, persistent=False)
        self._combine: Tensor | None

    def forward(self, x: Tensor | None = None, amplitudes: Tensor | None = None) -> Tensor:
        """Run the circuit for every example.

        Args:
            x: [batch, inputs] in the circuit's unit; None where there are no inputs.
            amplitudes: With `initial_state`, the normalised initial states [batch, 2^q], real or complex.

        Returns:
            Expectation values [batch, observables], or probabilities [batch, 2^q]; float32, or float64 where an input or
            the weights are.

        Raises:
            ExecutionError: An input is missing or of another shape.
        """
        self._check(x, amplitudes)
        weights = self.weights if self.weight_names else None
        values = measured(
            self.executor, self.template, self._program, data=x, weights=weights, amplitudes=amplitudes, squeeze=True
        )
        return values if self._combine is None else values @ self._combine.to(values.dtype)

    def use(self, executor: str | Executor = "statevector", **options: object) -> Self:
        """Choose how the circuit runs: "statevector" (exact), "shots", "noisy" (with target=), or an `Executor`.

        Example:
            >>> from sympy import Symbol
            >>> layer = QuantumLayer(Circuit(1).Ry(Symbol("w"), 0), inputs=[]).use("shots", shots=100)
            >>> layer().shape, layer.executor.history[-1].shots
            (torch.Size([1, 1]), 100)

        Raises:
            ExecutionError: The executor is unknown, or takes no such option or value.
        """
        self.executor = make_executor(executor, **options)
        return self

    def extra_repr(self) -> str:
        """Sizes for print()."""
        return f"qubits={self.template.qubits}, inputs={len(self.inputs)}, weights={len(self.weight_names)}"

    def _check(self, x: Tensor | None, amplitudes: Tensor | None) -> None:
        if x is None and self.inputs:
            raise ExecutionError(f"x is missing; give [batch, {len(self.inputs)}] for {', '.join(self.inputs)}.")
        if x is not None and (x.dim() != 2 or x.shape[1] != len(self.inputs) or not x.is_floating_point()):
            raise ExecutionError(
                f"x is {x.dtype} {list(x.shape)}; floats [batch, {len(self.inputs)}] are needed, one column an input."
            )
        if (amplitudes is None) == self.initial_state:
            state = f"amplitudes [batch, {2**self.template.qubits}]"
            raise ExecutionError(
                f"{state} are missing; the layer was made with initial_state=True."
                if self.initial_state
                else f"{state} were given; make the layer with initial_state=True to start from them."
            )


def _symbols_in_order(circuit: Circuit) -> tuple[str, ...]:
    """Names of a circuit's symbols by first appearance; inside one gate by parameter, then name."""
    names: dict[str, None] = {}
    for command in circuit.get_commands():
        found = sorted(str(s) for s in command.op.free_symbols())
        for parameter in command.op.params if found else ():
            for symbol in sorted(str(s) for s in sympy.sympify(parameter).free_symbols):
                names.setdefault(symbol)
        for symbol in found:
            names.setdefault(symbol)
    for symbol in sorted(str(s) for s in circuit.free_symbols()):
        names.setdefault(symbol)
    return tuple(names)


def _observables(
    circuit: Circuit, observables: Sequence[Observable] | None
) -> tuple[tuple[PauliString, ...], Tensor | None]:
    """All Pauli strings that the observables hold, and the matrix [strings, observables] that combines them."""
    if observables is None:
        return single_z(circuit.n_qubits), None
    places: dict[PauliString, int] = {}
    entries: list[tuple[int, int, float]] = []
    for column, observable in enumerate(observables):
        for pauli, coefficient in _terms(circuit, observable):
            entries.append((places.setdefault(pauli, len(places)), column, coefficient))
    if [(row, 1.0) for row in range(len(entries))] == [(row, c) for row, _, c in entries] and len(entries) == len(
        observables
    ):
        return tuple(places), None
    matrix = torch.zeros(len(places), len(observables), dtype=torch.float64)
    for row, column, coefficient in entries:
        matrix[row, column] += coefficient
    return tuple(places), matrix


def _terms(circuit: Circuit, observable: Observable) -> list[tuple[PauliString, float]]:
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    if isinstance(observable, str):
        if len(observable) != len(index) or set(observable) - set("IXYZ"):
            raise CircuitError(
                f"observable {observable!r} must be {len(index)} letters of I, X, Y, Z: one for each qubit."
            )
        return [(tuple((q, axis) for q, axis in enumerate(observable) if axis != "I"), 1.0)]
    terms = {observable: 1.0} if isinstance(observable, QubitPauliString) else dict(observable._dict)
    found = []
    for string, coefficient in terms.items():
        value = complex(coefficient)
        if unknown := [q for q in string.map if q not in index]:
            raise CircuitError(f"observable {string} acts on {unknown[0]}, which the circuit does not have.")
        if value.imag:
            raise CircuitError(f"the coefficient {coefficient} of {string} is not real; an observable's are.")
        pairs = sorted((index[q], pauli.name) for q, pauli in string.map.items() if pauli != Pauli.I)
        found.append((tuple(pairs), value.real))
    return found
