"""Run programs on batches of states by block matrix products in torch; differentiable by autograd.

Shapes: S sets of weights × B examples × 2^q amplitudes. A layer of one-qubit gates becomes Kronecker products over blocks of
at most `BLOCK_QUBITS` neighbouring qubits, applied as matrix products; diagonals are phases; CNOTs and SWAPs are index
permutations. Everything is done in the precision of the inputs: float32 → complex64, float64 → complex128.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcascade.circuits.observables import measurement_groups
from qcascade.circuits.template import PauliString
from qcascade.engine.program import DiagonalLayer, LocalLayer, PermutationLayer, Program, Rotation
from qcascade.errors import ExecutionError

BLOCK_QUBITS = 4


def evolve(
    program: Program,
    *,
    data: Tensor | None = None,
    weights: Tensor | None = None,
    amplitudes: Tensor | None = None,
) -> Tensor:
    """The final states of a program.

    Args:
        program: What to run.
        data: [B, D] values of the data symbols, or [S, B, D]; None where the program has none.
        weights: [S, W] or [W] values of the weight symbols; None where the program has none.
        amplitudes: Initial states [B, 2^q] or [S, B, 2^q], complex or real; None starts from |0…0⟩.

    Returns:
        States [S, B, 2^q], complex; B is 1 where neither data nor amplitudes are given.

    Raises:
        ExecutionError: A shape does not fit the program.

    Example:
        >>> from pytket.circuit import Circuit
        >>> from qcascade.circuits.template import CircuitTemplate
        >>> from qcascade.engine.program import lower
        >>> bell = lower(CircuitTemplate(Circuit(2).H(0).CX(0, 1), data=(), weights=()))
        >>> probabilities(evolve(bell))[0, 0]
        tensor([0.5000, 0.0000, 0.0000, 0.5000])
    """
    reference = next((t for t in (amplitudes, data, weights) if t is not None), torch.zeros(()))
    real = reference.real.dtype if reference.is_complex() else reference.dtype
    device, size = reference.device, 2**program.qubits
    weights = _symbols(weights, len(program.weights), "weights", real, device)
    data = _symbols(data, len(program.data), "data", real, device)
    weights = weights if weights.dim() == 2 else weights[None]
    angles = _angles(program, data, weights)  # [S, B or 1, A]
    state = _initial(amplitudes, size, angles, real)
    for step in program.steps:
        if isinstance(step, LocalLayer):
            state = _apply_local(state, step, angles)
        elif isinstance(step, DiagonalLayer):
            state = _apply_diagonal(state, step, angles)
        elif isinstance(step, PermutationLayer):
            state = state.index_select(-1, torch.from_numpy(step.source).to(device))
    return state.expand(max(state.shape[0], angles.shape[0]), max(state.shape[1], angles.shape[1]), size)


def probabilities(state: Tensor) -> Tensor:
    """|amplitude|² [..., 2^q] of states [..., 2^q]."""
    return state.real.square() + state.imag.square()


def expectations(state: Tensor, paulis: tuple[PauliString, ...]) -> Tensor:
    """⟨P⟩ [..., K] of K Pauli strings in states [..., 2^q].

    Strings are evaluated axis group by axis group: those whose factors share one choice of axes become one change of
    basis and one product with signs.

    Example:
        >>> expectations(torch.tensor([1.0 + 0j, 0]), (((0, "Z"),), ((0, "X"),)))
        tensor([1., 0.])
    """
    qubits = (state.shape[-1]).bit_length() - 1
    columns: list[Tensor] = []
    order: list[int] = []
    for basis, members in _grouped(paulis):
        rotated = _rotate_basis(state, basis, qubits)
        signs = _signs(tuple(tuple(q for q, _ in paulis[m]) for m in members), qubits)
        chance = probabilities(rotated)
        columns.append(chance @ torch.from_numpy(signs).to(chance))
        order.extend(members)
    if not columns:
        return state.real[..., :0]
    return torch.cat(columns, -1)[..., torch.tensor(order, device=state.device).argsort()]


def unitary_columns(program: Program, weights: Tensor, columns: int) -> Tensor:
    """The first `columns` columns of the program's unitary for every weight set: [S, 2^q, columns]."""
    size = 2**program.qubits
    basis = torch.eye(columns, size, dtype=weights.dtype, device=weights.device)
    return evolve(program, weights=weights, amplitudes=basis).transpose(-1, -2)


def _symbols(values: Tensor | None, width: int, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    if values is None:
        values = torch.zeros(1, 0, dtype=dtype, device=device)
    if values.shape[-1] != width:
        raise ExecutionError(f"`{name}` has {values.shape[-1]} columns; the program has {width} symbols there.")
    return values.to(dtype)


def _angles(program: Program, data: Tensor, weights: Tensor) -> Tensor:
    matrix = torch.from_numpy(program.coefficients).to(weights)
    constants = torch.from_numpy(program.constants).to(weights)
    columns = len(program.data)
    shared = weights @ matrix[:, columns:].T + constants  # [S, A]
    if not columns:
        return shared[:, None]
    own = data @ matrix[:, :columns].T  # [B, A] or [S, B, A]
    return shared[:, None] + (own if own.dim() == 3 else own[None])


def _initial(amplitudes: Tensor | None, size: int, angles: Tensor, real: torch.dtype) -> Tensor:
    dtype = torch.complex128 if real == torch.float64 else torch.complex64
    if amplitudes is None:
        state = torch.zeros(angles.shape[0], angles.shape[1], size, dtype=dtype, device=angles.device)
        state[..., 0] = 1
        return state
    if amplitudes.shape[-1] != size:
        raise ExecutionError(f"`amplitudes` has {amplitudes.shape[-1]} entries a state; the program needs {size}.")
    state = amplitudes if amplitudes.dim() == 3 else amplitudes[None]
    return state.to(dtype).expand(angles.shape[0], -1, size)


def _apply_local(state: Tensor, layer: LocalLayer, angles: Tensor) -> Tensor:
    """Kronecker products of one-qubit gates, block by block."""
    qubits = len(layer.rotations)
    gates = _gates(layer.rotations, angles)
    count = math.ceil(qubits / BLOCK_QUBITS)
    edges = [round(qubits * k / count) for k in range(count + 1)]
    for start, stop in pairwise(edges):
        if any(layer.rotations[start:stop]):
            state = _apply_block(state, _kronecker(gates[..., start:stop, :, :]), start, stop - start, qubits)
    return state


def _gates(rotations: tuple[tuple[Rotation, ...], ...], angles: Tensor) -> Tensor:
    """Each qubit's product of rotations, all qubits at once: [S, B, q, 2, 2].

    A gate is [[a, −b*], [b, a*]]; the n-th rotations of all qubits are applied together, with angle 0 where there is none.
    """
    a = torch.ones(
        (), dtype=torch.complex128 if angles.dtype == torch.float64 else torch.complex64, device=angles.device
    )
    b = torch.zeros_like(a)
    for place in range(max(map(len, rotations))):
        row = [r[place] if place < len(r) else None for r in rotations]
        index = torch.tensor([0 if r is None else r.angle for r in row], device=angles.device)
        x, y, z, some = (
            torch.tensor([r is not None and r.axis in axes for r in row], dtype=angles.dtype, device=angles.device)
            for axes in ("X", "Y", "Z", "XYZ")
        )
        half = angles[..., index] * (some / 2)
        sine = half.sin()
        ga, gb = torch.complex(half.cos(), -sine * z), torch.complex(sine * y, -sine * x)
        a, b = ga * a - gb.conj() * b, gb * a + ga.conj() * b
    gates: Tensor = torch.stack((a, -b.conj(), b, a.conj()), -1).unflatten(-1, (2, 2))
    return gates


def _kronecker(gates: Tensor) -> Tensor:
    """[S, B, 2^w, 2^w] of gates [S, B, w, 2, 2]."""
    product = gates[..., 0, :, :]
    for qubit in range(1, gates.shape[-3]):
        left = product[..., :, None, :, None] * gates[..., qubit, None, :, None, :]
        product = left.flatten(-4, -3).flatten(-2, -1)
    return product


def _apply_block(state: Tensor, matrix: Tensor, start: int, width: int, qubits: int) -> Tensor:
    """`matrix` [S, B, 2^w, 2^w] (or S, B of 1, or none) on qubits start … start + w − 1 of states [S, B, 2^q]."""
    size = state.shape[-1]
    before, inner, after = 2**start, 2**width, 2 ** (qubits - start - width)
    matrix = matrix if matrix.dim() == 4 else matrix[None, None]
    sets, batch = max(state.shape[0], matrix.shape[0]), max(state.shape[1], matrix.shape[1])
    if after == 1:  # a row-vector product; with shared matrices the batch joins the rows
        if matrix.shape[1] == 1:
            rows = state.reshape(state.shape[0], -1, inner) @ matrix[:, 0].transpose(-1, -2)
        else:
            rows = state.reshape(*state.shape[:2], before, inner) @ matrix.transpose(-1, -2)
        return rows.reshape(sets, batch, size)
    view = state.reshape(*state.shape[:2], before, inner, after)
    return (matrix.unsqueeze(2) @ view).reshape(sets, batch, size)


def _apply_diagonal(state: Tensor, layer: DiagonalLayer, angles: Tensor) -> Tensor:
    patterns = torch.from_numpy(layer.patterns).to(angles)
    phase = angles[..., list(layer.angles)] @ patterns
    return state * torch.complex(phase.cos(), phase.sin())


@lru_cache(maxsize=256)
def _grouped(paulis: tuple[PauliString, ...]) -> tuple[tuple[tuple[tuple[int, str], ...], tuple[int, ...]], ...]:
    """Strings by measurement setting: (axis of every touched qubit, indices of the strings)."""
    return tuple((tuple(sorted(basis.items())), tuple(members)) for basis, members in measurement_groups(paulis))


def _rotate_basis(state: Tensor, basis: tuple[tuple[int, str], ...], qubits: int) -> Tensor:
    """Change every qubit measured along X or Y to the Z basis."""
    root = 2**-0.5
    change = {
        "X": torch.tensor([[root, root], [root, -root]], dtype=state.dtype, device=state.device),
        "Y": torch.tensor([[root, -1j * root], [root, 1j * root]], dtype=state.dtype, device=state.device),
    }
    axes = {qubit: axis for qubit, axis in basis if axis != "Z"}
    if not axes:
        return state
    identity = torch.eye(2, dtype=state.dtype, device=state.device)
    lead = state.shape[:-1]
    flat = state.reshape(1, -1, state.shape[-1])
    for start in range(0, qubits, BLOCK_QUBITS):
        width = min(BLOCK_QUBITS, qubits - start)
        if any(q in axes for q in range(start, start + width)):
            matrix = torch.ones(1, 1, dtype=state.dtype, device=state.device)
            for qubit in range(start, start + width):
                matrix = torch.kron(matrix, change[axes[qubit]] if qubit in axes else identity)
            flat = _apply_block(flat, matrix, start, width, qubits)
    return flat.reshape(*lead, -1)


@lru_cache(maxsize=256)
def _signs(supports: tuple[tuple[int, ...], ...], qubits: int) -> NDArray[np.float64]:
    """(−1)^(parity of the support's bits): [2^q, K]."""
    index = np.arange(2**qubits)
    parities = [sum(((index >> (qubits - 1 - qubit)) & 1 for qubit in support), 0 * index) % 2 for support in supports]
    return 1.0 - 2.0 * np.stack(parities, -1)
