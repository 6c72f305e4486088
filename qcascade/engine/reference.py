"""The reference: programs run on batches of states by block matrix products in torch, on any device, by autograd.

Shapes: S sets of weights × B examples × 2^q amplitudes. A layer of one-qubit gates becomes Kronecker products over blocks of
at most `BLOCK_QUBITS` neighbouring qubits, applied as matrix products; diagonals are phases; CNOTs and SWAPs are index
permutations. Memory grows with depth. Every derivative exists.
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
from qcascade.circuits.template import Expectations, Measurement, PauliString
from qcascade.engine.program import DiagonalLayer, LinearLayer, LocalLayer, PhaseTerm, Program, Rotation

BLOCK_QUBITS = 4


def simulate(
    program: Program, measurement: Measurement | None, data: Tensor, weights: Tensor, amplitudes: Tensor | None
) -> Tensor:
    """What `operators.simulate` gives, of checked inputs: data [1|S, B, D], weights [S, W], amplitudes [1|S, 1|B, 2^q]."""
    angles = _angles(program, data, weights)  # [S, B or 1, A]
    state = _initial(amplitudes, 2**program.qubits, angles)
    for layer in program.layers:
        if isinstance(layer, LocalLayer):
            state = _apply_local(state, layer, angles)
        elif isinstance(layer, DiagonalLayer):
            state = _apply_diagonal(state, layer, angles, program.qubits)
        elif isinstance(layer, LinearLayer):
            state = state.index_select(-1, torch.from_numpy(_source(layer)).to(state.device))
    batch = max(state.shape[1], data.shape[1]) if data.shape[1] else 0
    state = state.expand(max(state.shape[0], angles.shape[0]), batch, -1)
    if measurement is None:
        if program.phase is None:
            return state
        whole = angles[..., program.phase, None]
        return state * torch.complex(whole.cos(), whole.sin())
    if isinstance(measurement, Expectations):
        return _expectations(state, measurement.paulis)
    return _probabilities(state)


def _probabilities(state: Tensor) -> Tensor:
    return state.real.square() + state.imag.square()


def _expectations(state: Tensor, paulis: tuple[PauliString, ...]) -> Tensor:
    """⟨P⟩ [..., K] of K Pauli strings in states [..., 2^q].

    Strings are evaluated axis group by axis group: those whose factors share one choice of axes become one change of
    basis and one product with signs.
    """
    qubits = (state.shape[-1]).bit_length() - 1
    columns: list[Tensor] = []
    order: list[int] = []
    for basis, members in _grouped(paulis):
        rotated = _rotate_basis(state, basis, qubits)
        signs = _signs(tuple(tuple(q for q, _ in paulis[m]) for m in members), qubits)
        chance = _probabilities(rotated)
        columns.append(chance @ torch.from_numpy(signs).to(chance))
        order.extend(members)
    if not columns:
        return state.real[..., :0]
    return torch.cat(columns, -1)[..., torch.tensor(order, device=state.device).argsort()]


def _angles(program: Program, data: Tensor, weights: Tensor) -> Tensor:
    matrix = torch.from_numpy(program.coefficients).to(weights)
    constants = torch.from_numpy(program.constants).to(weights)
    columns = len(program.data)
    shared = weights @ matrix[:, columns:].T + constants  # [S, A]
    if not program.uses_data:
        return shared[:, None]
    return shared[:, None] + data @ matrix[:, :columns].T


def _initial(amplitudes: Tensor | None, size: int, angles: Tensor) -> Tensor:
    dtype = torch.complex128 if angles.dtype == torch.float64 else torch.complex64
    if amplitudes is None:
        state = torch.zeros(angles.shape[0], angles.shape[1], size, dtype=dtype, device=angles.device)
        state[..., 0] = 1
        return state
    return amplitudes.to(dtype).expand(angles.shape[0], -1, size)


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


def _apply_diagonal(state: Tensor, layer: DiagonalLayer, angles: Tensor, qubits: int) -> Tensor:
    patterns = torch.from_numpy(_patterns(layer.terms, qubits)).to(angles)
    phase = angles[..., [term.angle for term in layer.terms]] @ patterns
    return state * torch.complex(phase.cos(), phase.sin())


@lru_cache(maxsize=256)
def _patterns(terms: tuple[PhaseTerm, ...], qubits: int) -> NDArray[np.float64]:
    """Which basis states every term acts on: [K, 2^q] of 0 and 1."""
    index = np.arange(2**qubits)
    rows = [np.prod([np.bitwise_count(index & mask) & 1 for mask in term.masks], axis=0) for term in terms]
    return np.stack(rows).astype(np.float64)


@lru_cache(maxsize=256)
def _source(layer: LinearLayer) -> NDArray[np.int64]:
    """new[i] = old[source[i]]."""
    return np.argsort(layer.image())


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
