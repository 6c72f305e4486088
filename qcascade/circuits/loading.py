"""Loading amplitudes: the circuit that prepares a state from |0…0⟩, and its angles as functions of the amplitudes.

A tree of multiplexed RY, each taken apart into plain RY and CNOTs in Gray-code order, loads real amplitudes with
2^q − 2 CNOTs; multiplexed RZ add the phases of complex ones with as many again. The plain angles are a Walsh–Hadamard
transform of the tree's, so the two-term shift rule on them gives exact gradients of the loaded data.

Source: Möttönen, Vartiainen, Bergholm and Salomaa 2005 (quant-ph/0407010), section III; Shende, Bullock and Markov 2006.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from pytket.circuit import Circuit
from sympy import Symbol, pi
from torch import Tensor


def loading_circuit(qubits: int, *, real: bool) -> tuple[Circuit, tuple[str, ...]]:
    """The circuit and its symbols, angles in radians, in the order of `loading_angles`.

    Args:
        qubits: Width q.
        real: Whether the amplitudes are real (they may be negative).

    Example:
        >>> circuit, angles = loading_circuit(4, real=True)
        >>> circuit.n_2qb_gates(), len(angles)
        (14, 15)
    """
    circuit, names = Circuit(qubits), list[str]()

    def multiplexed(rotation: str, target: int) -> None:
        """Uniformly controlled by all qubits before `target`."""
        for place in range(2**target):
            names.append(f"load_{rotation}_{target}_{place}")
            angle = Symbol(names[-1]) / pi
            _ = circuit.Ry(angle, target) if rotation == "y" else circuit.Rz(angle, target)
            if target:
                circuit.CX(target - 1 - _changed_bit(place, target), target)

    for target in range(qubits):
        multiplexed("y", target)
    if not real:
        for target in reversed(range(qubits)):
            multiplexed("z", target)
    return circuit, tuple(names)


def loading_angles(amplitudes: Tensor, *, real: bool) -> Tensor:
    """The angles that load normalised states.

    They are differentiable wherever the state is: the angle of a branch without amplitude is 0 and has no gradient. Only
    the direction of a state is loaded, so gradients are tangential: upstream normalisation makes nothing of the rest. The
    global phase of a complex state is left out.

    Args:
        amplitudes: [..., 2^q], real, or complex.
        real: Whether to load as real amplitudes; an imaginary part is then an error of the caller's.

    Returns:
        [..., 2^q − 1] radians for real loading, [..., 2^(q+1) − 2] for complex.

    Example:
        >>> loading_angles(torch.tensor([0.0, 1.0]), real=True)
        tensor([3.1416])
    """
    if amplitudes.is_complex() and real:
        amplitudes = amplitudes.real
    qubits = amplitudes.shape[-1].bit_length() - 1
    branch = amplitudes if real else _modulus(amplitudes)
    levels = []
    for target in reversed(range(qubits)):
        left, right = branch[..., 0::2], branch[..., 1::2]
        levels.append(_walsh(2 * _angle(right, left), target))
        branch = _length(left, right)
    levels.reverse()
    if not real:
        phases = _phase(amplitudes)
        for target in reversed(range(qubits)):
            left, right = phases[..., 0::2], phases[..., 1::2]
            levels.append(_walsh(right - left, target))
            phases = (left + right) / 2
    return torch.cat(levels, -1)


def _changed_bit(place: int, bits: int) -> int:
    """The bit that differs between the Gray codes of `place` and of the next one, around."""
    return bits - 1 if place == 2**bits - 1 else ((place + 1) & -(place + 1)).bit_length() - 1


@lru_cache(maxsize=64)
def _signs(bits: int) -> NDArray[np.float64]:
    """(−1)^(node·gray(place)) / 2^bits [nodes, places]."""
    place = np.arange(2**bits)
    gray = place ^ (place >> 1)
    parity = np.bitwise_count(place[:, None] & gray[None, :]) & 1
    signs: NDArray[np.float64] = (1.0 - 2.0 * parity) / 2**bits
    return signs


def _walsh(angles: Tensor, bits: int) -> Tensor:
    return angles @ torch.as_tensor(_signs(bits), dtype=angles.dtype, device=angles.device)


def _angle(y: Tensor, x: Tensor) -> Tensor:
    """atan2, 0 and flat at the origin."""
    origin = (y == 0) & (x == 0)
    return torch.atan2(torch.where(origin, 0.0, y), torch.where(origin, 1.0, x))


def _length(x: Tensor, y: Tensor) -> Tensor:
    square = x.square() + y.square()
    origin = square == 0
    return torch.where(origin, 0.0, torch.where(origin, 1.0, square).sqrt())


def _modulus(z: Tensor) -> Tensor:
    return _length(z.real, z.imag)


def _phase(z: Tensor) -> Tensor:
    return _angle(z.imag, z.real)
