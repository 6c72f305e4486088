"""Error mitigation: readout inversion and zero-noise extrapolation. They compose, and say what they cost.

Readout inversion undoes the confusion matrices of the qubits read, one 2 × 2 matrix each (Bravyi et al. 2021, "Mitigating
measurement errors in multiqubit experiments", tensor product noise). Zero-noise extrapolation runs every circuit again
with its two-qubit gates folded, G → G (G† G)^k, and extrapolates the values to no noise (Temme, Bravyi and Gambetta
2017; local folding: Giurgica-Tiron et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcascade.circuits.template import Expectations, Measurement
from qcascade.errors import ExecutionError
from qcascade.executors.settings import is_number_of_shots

Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReadoutInversion:
    """Invert the confusion of 0 and 1 on every qubit read.

    Args:
        calibration_shots: None takes the target's readout errors. A number measures them on the executor itself, by
            two circuits of so many shots for every set of qubits read: all in 0, all in 1; once for an executor.

    Example:
        >>> ReadoutInversion().overhead
        1
    """

    calibration_shots: int | None = None

    def __post_init__(self) -> None:
        shots = self.calibration_shots
        if shots is not None and not is_number_of_shots(shots):
            raise ExecutionError(
                f"calibration_shots={shots!r}; a whole number of at least 1, at most 2**53, or None for the target's figures, is accepted."
            )

    @property
    def overhead(self) -> int:
        """Circuits run for each one asked for, calibration aside."""
        return 1

    def variance(self, measurement: Measurement, qubits: int, readout_error: float) -> float:
        """How much larger the worst case's variance becomes: of the longest string, or of one outcome (of a quarter's).

        An outcome's estimate is ⊗ of the first row of the inverses, c, summed over the frequencies; of states that are the outcome
        with chance p, and else differ from it in one qubit, its variance is pA + (1 − p)B − p², A and B the means of c² there.

        Example:
            >>> round(ReadoutInversion().variance(Expectations((((0, "Z"),),)), 4, 0.1), 4)
            1.5625
        """
        if readout_error >= 0.5:
            return float("inf")
        scale = (1 - 2 * readout_error) ** -2
        if isinstance(measurement, Expectations):
            return float(scale ** max((len(pauli) for pauli in measurement.paulis), default=0))
        right, wrong = 1 - readout_error, readout_error
        a_qubit = (right**3 + wrong**3) * scale
        here, beside = a_qubit**qubits, right * wrong * scale * a_qubit ** (qubits - 1)
        chance = min((here - beside) / 2, 1.0)  # of the largest variance; from 0, since errors are below a half
        return float(4 * (chance * here + (1 - chance) * beside - chance**2))


@dataclass(frozen=True, slots=True)
class ZeroNoiseExtrapolation:
    """Extrapolate from circuits whose native two-qubit gates are each run 1, 3, 5, … times.

    Args:
        factors: How often, odd, each once, at least two; 1 is the circuit itself.
        fit: "linear" (least squares), "richardson" (the polynomial through all points), or "exponential" towards the
            value of the fully mixed state, linear where that does not fit. The first two are linear in the values, so
            that shift rules stay exact for what they extrapolate to; for "exponential" they are approximate.

    Example:
        >>> ZeroNoiseExtrapolation((1, 3)).overhead
        2
    """

    factors: tuple[int, ...] = (1, 3, 5)
    fit: Literal["linear", "richardson", "exponential"] = "linear"

    def __post_init__(self) -> None:
        factors = tuple(self.factors)
        object.__setattr__(self, "factors", factors)
        odd = all(isinstance(f, int) and f > 0 and f % 2 for f in factors)
        if len(factors) < 2 or len(set(factors)) < len(factors) or not odd:
            raise ExecutionError(f"factors={factors}; at least two different odd whole numbers are accepted.")
        if self.fit not in ("linear", "richardson", "exponential"):
            raise ExecutionError(f"fit={self.fit!r} is unknown; choose 'linear', 'richardson' or 'exponential'.")

    @property
    def overhead(self) -> int:
        """Circuits run for each one asked for."""
        return len(self.factors)

    @property
    def variance(self) -> float:
        """How much larger the variance becomes, every circuit having as many shots as one without extrapolation.

        Example:
            >>> round(ZeroNoiseExtrapolation((1, 3)).variance, 6)
            2.5
        """
        return float((self._weights() ** 2).sum())

    def extrapolate(self, values: Values, variances: Values, mixed: float) -> tuple[Values, Values]:
        """Values and variances [N, K] at no noise from those at each factor [F, N, K].

        `mixed` is what the fully mixed state gives.
        """
        weights = self._weights()
        line, spread = np.tensordot(weights, values, 1), np.tensordot(weights**2, variances, 1)
        if self.fit != "exponential":
            return line, spread
        return self._exponential(values - mixed, variances, mixed, line, spread)

    def _weights(self) -> Values:
        """What each factor's value counts for in the value at 0."""
        count = len(self.factors)
        powers = np.vander(np.array(self.factors, float), count if self.fit == "richardson" else 2, increasing=True)
        weights: Values = np.linalg.pinv(powers)[0]
        return weights

    def _exponential(
        self, off: Values, variances: Values, mixed: float, line: Values, spread: Values
    ) -> tuple[Values, Values]:
        """A line through log |v − mixed| where all have one sign, well above their errors, and fall; else the line."""
        clear = (np.abs(off) > 3 * np.sqrt(variances)).all(0) & (np.sign(off) == np.sign(off[:1])).all(0)
        clear &= (np.diff(np.abs(off[np.argsort(self.factors)]), axis=0) <= 0).all(0)
        safe = np.where(clear, np.abs(off), 1.0)
        weights = self._weights()
        found = np.exp(np.tensordot(weights, np.log(safe), 1)) * np.sign(off[0])
        error = found**2 * np.tensordot(weights**2, variances / safe**2, 1)  # first order
        return np.where(clear, found + mixed, line), np.where(clear, error, spread)


Mitigation: TypeAlias = ReadoutInversion | ZeroNoiseExtrapolation


@dataclass(frozen=True, slots=True)
class Plan:
    """What of each kind is done."""

    readout: ReadoutInversion | None = None
    noise: ZeroNoiseExtrapolation | None = None

    @property
    def overhead(self) -> int:
        """Circuits run for each one asked for, calibration aside."""
        return 1 if self.noise is None else self.noise.overhead

    @property
    def factors(self) -> tuple[int, ...]:
        """How often two-qubit gates are run."""
        return (1,) if self.noise is None else self.noise.factors

    def variance(self, measurement: Measurement, qubits: int, readout_error: float | None) -> float:
        """How many times as many shots a circuit needs for the same standard errors."""
        inverted = 1.0 if self.readout is None else self.readout.variance(measurement, qubits, readout_error or 0.0)
        return inverted * (1.0 if self.noise is None else self.noise.variance)


def plan_of(mitigation: Sequence[Mitigation]) -> Plan:
    """At most one of each kind.

    Raises:
        ExecutionError: There are two of a kind, or something else.

    Example:
        >>> plan_of([ReadoutInversion(), ZeroNoiseExtrapolation((1, 3))]).overhead
        2
    """
    readout = [m for m in mitigation if isinstance(m, ReadoutInversion)]
    noise = [m for m in mitigation if isinstance(m, ZeroNoiseExtrapolation)]
    if len(readout) > 1 or len(noise) > 1 or len(readout) + len(noise) < len(mitigation):
        raise ExecutionError(
            f"mitigation={list(mitigation)!r}; at most one ReadoutInversion and one ZeroNoiseExtrapolation are accepted."
        )
    return Plan(readout[0] if readout else None, noise[0] if noise else None)


def confusion_inverse(read_1_of_0: float, read_0_of_1: float) -> Values:
    """The inverse of a qubit's confusion matrix (column: true, row: read).

    Raises:
        ExecutionError: Readout tells nothing about the qubit.

    Example:
        >>> (confusion_inverse(0.1, 0.1) @ [0.9, 0.1]).round(6).tolist()
        [1.0, 0.0]
    """
    if abs(1 - read_1_of_0 - read_0_of_1) < 0.02:
        raise ExecutionError(
            f"readout with errors {read_1_of_0:.3g} and {read_0_of_1:.3g} cannot be inverted; use other qubits."
        )
    return np.linalg.inv(np.array([[1 - read_1_of_0, read_0_of_1], [read_1_of_0, 1 - read_0_of_1]]))
