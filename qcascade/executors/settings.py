"""Measurement settings, and estimates from the counts of each.

A setting is one choice of axes for the qubits read; its counts [N, 2^m] are indexed by the read bits, the first one
most significant. Values are linear in the observed frequencies f: v = Σ_x c_x f_x with variance (Σ c_x² f_x − v²) / n;
inverting readout only changes c. So that nothing looks certain after few shots, a variance is at least what one
deviating shot would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qcascade.circuits.observables import measurement_groups
from qcascade.circuits.template import Expectations, Measurement

MAX_BITS = 20  # read at once: counts are kept for every outcome
_MOST_SHOTS = 2**53  # counts are exact up to here
_KEPT_BITS = 8
Array = NDArray[np.float64]


def is_number_of_shots(value: object) -> bool:
    """Whether circuits can be given so many shots: a whole number of at least 1, at most 2^53."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        return False
    return 1 <= int(value) <= _MOST_SHOTS


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One way to read: `axes[b]` is the axis of read bit b and `qubits[b]` its qubit of the template.

    `members` holds, for each value, the bits whose parity it is; None where every outcome's probability is a value.
    `columns` are the values' places in the measurement.
    """

    qubits: tuple[int, ...]
    axes: tuple[str, ...]
    members: tuple[tuple[int, ...], ...] | None
    columns: NDArray[np.int64]


@lru_cache(maxsize=256)
def settings_of(measurement: Measurement, qubits: int) -> tuple[Setting, ...]:
    """The settings of a measurement on a template of `qubits` qubits.

    Example:
        >>> from qcascade.circuits.observables import one_and_two_body
        >>> len(settings_of(Expectations(one_and_two_body(3)), 3))
        3
    """
    if not isinstance(measurement, Expectations):
        return (Setting(tuple(range(qubits)), ("Z",) * qubits, None, np.arange(2**qubits)),)
    found = []
    for basis, places in measurement_groups(measurement.paulis):
        read = sorted(basis) or [0]  # an identity alone: any qubit does
        members = tuple(tuple(read.index(q) for q, _ in measurement.paulis[place]) for place in places)
        found.append(Setting(tuple(read), tuple(basis.get(q, "Z") for q in read), members, np.array(places)))
    return tuple(found)


def width_of(measurement: Measurement, qubits: int) -> int:
    """How many values a measurement has."""
    return len(measurement.paulis) if isinstance(measurement, Expectations) else 2**qubits


def estimate(counts: Array, setting: Setting, inverses: Sequence[Array] | None = None) -> tuple[Array, Array]:
    """Values and variances [N, K] of a setting's counts [N, 2^m].

    Args:
        counts: How often each outcome was read; rows may have different sums.
        setting: What was read.
        inverses: For every bit the inverse [2, 2] of its confusion matrix (column: true, row: read).

    Example:
        >>> setting = settings_of(Expectations((((0, "Z"),),)), 1)[0]
        >>> estimate(np.array([[75.0, 25.0]]), setting)[0]
        array([[0.5]])
    """
    shots = counts.sum(1, keepdims=True)
    frequencies = counts / shots
    if setting.members is None:
        values, squares, spread = _outcomes(frequencies, inverses)
    else:
        bits = len(setting.qubits)
        matrix = _plain_signs(setting.members, bits) if inverses is None else _signs(setting.members, bits, inverses)
        values, squares = frequencies @ matrix, frequencies @ matrix**2
        spread = matrix.max(0) - matrix.min(0)
    return values, np.maximum(squares - values**2, spread**2 / shots) / shots


def exact(probabilities: Array, setting: Setting) -> Array:
    """Values [N, K] of outcome probabilities [N, 2^m]."""
    if setting.members is None:
        return probabilities
    return probabilities @ _plain_signs(setting.members, len(setting.qubits))


def _outcomes(frequencies: Array, inverses: Sequence[Array] | None) -> tuple[Array, Array, Array]:
    """Probabilities, what Σ c² f is for each, and the range of c."""
    if inverses is None:
        return frequencies, frequencies, np.ones(1)
    spread = np.prod([np.abs(matrix).max() for matrix in inverses])
    return tensored(frequencies, inverses), tensored(frequencies, [m**2 for m in inverses]), np.array([spread])


def tensored(values: Array, matrices: Sequence[Array]) -> Array:
    """⊗ matrices applied to every row of values [N, 2^m]."""
    rows, shape = len(values), (len(values),) + (2,) * len(matrices)
    for bit, matrix in enumerate(matrices):
        values = np.moveaxis(np.tensordot(values.reshape(shape), matrix, ([bit + 1], [1])), -1, bit + 1)
    return values.reshape(rows, -1)


def _plain_signs(members: tuple[tuple[int, ...], ...], bits: int) -> Array:
    """`_signs` without inverses; small ones are kept, since every step of a training asks for them."""
    return _kept_signs(members, bits) if bits <= _KEPT_BITS else _signs(members, bits, None)


def _signs(members: tuple[tuple[int, ...], ...], bits: int, inverses: Sequence[Array] | None) -> Array:
    """Coefficients [2^m, K]: the product over a value's bits of (1, −1), or of (1, −1) through the bit's inverse."""
    vectors = np.tile(np.array([1.0, -1.0]), (bits, 1))
    if inverses is not None:
        vectors = np.stack([vector @ inverse for vector, inverse in zip(vectors, inverses, strict=True)])
    outcomes = np.arange(2**bits)
    factors = np.stack([vectors[b, outcomes >> (bits - 1 - b) & 1] for b in range(bits)])  # [m, 2^m]
    return np.stack([factors[list(places)].prod(0) for places in members], 1)


@lru_cache(maxsize=256)
def _kept_signs(members: tuple[tuple[int, ...], ...], bits: int) -> Array:
    found = _signs(members, bits, None)
    found.flags.writeable = False
    return found
