"""Ion traps from published figures: Quantinuum H1-1, H2-1, H2-2 and IonQ Aria-1, Forte-1. Every pair is joined.

Native gates by Qiskit's names: rz, a change of frame; r, pytket's PhasedX; rzz, pytket's ZZPhase. What no source says
is None: above all Quantinuum's gate and transport times, which depend on the circuit and are published as a mean only,
so that neither durations nor idle errors are predicted there. Readout errors are of preparation and measurement together
(SPAM).

IonQ publishes r of depolarising channels, of which K₀ = √(1 − (1 − d⁻²) r) keeps the state: the average gate infidelity
is r (1 − 1/d), so r/2 for one qubit and 3r/4 for two (https://docs.ionq.com/guides/simulation-with-noise-models).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from qcascade.targets.target import Price, QubitProperties, Target, places_on

_HQC = Price(
    "HQC",
    per_circuit=5.0,
    per_one_qubit_gate=1 / 5000,
    per_two_qubit_gate=10 / 5000,
    per_measurement=10 / 5000,  # each measured qubit is prepared too, 5 / 5000 each
    source="HQC = 5 + C (N1q + 10 N2q + 5 Nm) / 5000, Nm counting preparations too; "
    "https://learn.microsoft.com/azure/quantum/pricing of 2025-02-26",
)
_BENCHMARKS = "https://github.com/CQCL/quantinuum-hardware-specifications"
_BRAKET = "https://aws.amazon.com/braket/pricing, read 2026-11"
_NOISE = "gate errors: 3r/4 and r/2 of the r at https://docs.ionq.com/guides/simulation-with-noise-models"


@dataclass(frozen=True, slots=True)
class _Trap:
    """The figures of one machine, the same for all its qubits."""

    plain: str
    qubits: int
    one_qubit_error: float
    two_qubit_error: float
    readout_error: float | None
    price: Price
    source: str
    one_qubit_seconds: float | None = None
    two_qubit_seconds: float | None = None
    t1: float | None = None
    t2: float | None = None
    parallel_two_qubit_gates: int | None = None
    calibrated: str | None = None


_TRAPS = {
    "quantinuum_h1_1": _Trap(
        plain="H1-1",
        qubits=20,
        one_qubit_error=1.80e-5,
        two_qubit_error=9.73e-4,
        readout_error=(1.22e-3 + 3.43e-3) / 2,
        price=_HQC,
        source="errors: defaults of the H1-1 emulator, "
        "https://docs.quantinuum.com/systems/user_guide/emulator_user_guide/emulators/h1_emulators.html; "
        f"SPAM also from data/H1-1/2025_05_02 of {_BENCHMARKS}, where 5 zones of 2 qubits are benchmarked at once; "
        "times, T1, T2 and memory errors not published by gate",
        parallel_two_qubit_gates=5,
        calibrated="2025-05-02",
    ),
    "quantinuum_h2_1": _Trap(
        plain="H2-1",
        qubits=56,
        one_qubit_error=1.65e-5,
        two_qubit_error=1.02e-3,
        readout_error=(6.0e-4 + 1.39e-3) / 2,
        price=_HQC,
        source=f"errors: the survival counts of randomised benchmarking and SPAM in data/H2-1/2025_04_30 of "
        f"{_BENCHMARKS}, all zones fitted together as qtm_spec does; 4 gate zones; "
        "times, T1, T2 and memory errors not published by gate",
        parallel_two_qubit_gates=4,
        calibrated="2025-04-30",
    ),
    "quantinuum_h2_2": _Trap(
        plain="H2-2",
        qubits=56,
        one_qubit_error=3.03e-5,
        two_qubit_error=1.09e-3,
        readout_error=(6.0e-4 + 1.78e-3) / 2,
        price=_HQC,
        source=f"errors: the survival counts of randomised benchmarking and SPAM in data/H2-2/2025_05_29 of "
        f"{_BENCHMARKS}, all zones fitted together as qtm_spec does; 4 gate zones; "
        "times, T1, T2 and memory errors not published by gate",
        parallel_two_qubit_gates=4,
        calibrated="2025-05-29",
    ),
    "ionq_aria_1": _Trap(
        plain="Aria-1",
        qubits=25,
        one_qubit_error=0.0005 / 2,
        two_qubit_error=0.0133 * 3 / 4,
        readout_error=0.0039,
        price=Price("USD", per_circuit=0.3, per_shot=0.03, source=_BRAKET),
        source=f"{_NOISE}; SPAM, gate times, T1 (the least of 10 to 100 s) and T2: "
        "https://learn.microsoft.com/azure/quantum/provider-ionq of 2025-09-17; one two-qubit gate at a time is assumed",
        one_qubit_seconds=135e-6,
        two_qubit_seconds=600e-6,
        t1=10.0,
        t2=1.0,
        parallel_two_qubit_gates=1,
    ),
    "ionq_forte_1": _Trap(
        plain="Forte-1",
        qubits=36,
        one_qubit_error=0.0002666666666666667 / 2,
        two_qubit_error=0.004949333333333333 * 3 / 4,
        readout_error=None,
        price=Price("USD", per_circuit=0.3, per_shot=0.08, source=_BRAKET),
        source=f"{_NOISE}; SPAM, times, T1 and T2 not published openly; one two-qubit gate at a time is assumed",
        parallel_two_qubit_gates=1,
    ),
}
_ALIASES = {trap.plain.lower(): name for name, trap in _TRAPS.items()}


def names() -> tuple[str, ...]:
    """Names of these machines; their plain names ("H2-1", "aria-1") are understood too."""
    return tuple(_TRAPS)


def load(name: str) -> Target | None:
    """The machine of a name, in either form and any case; None where it is not of these.

    Example:
        >>> load("Aria-1").median_error()
        0.009975
    """
    full = _ALIASES.get(name.lower(), name.lower())
    trap = _TRAPS.get(full)
    if trap is None:
        return None
    maker = "Quantinuum" if full.startswith("quantinuum") else "IonQ"
    qubits = [(q,) for q in range(trap.qubits)]
    pairs = list(permutations(range(trap.qubits), 2))
    each = QubitProperties(trap.readout_error, None, trap.t1, trap.t2)
    return Target(
        full,
        f"{maker} {trap.plain}: {trap.qubits} trapped ions, every pair joined; published averages"
        + ("" if trap.two_qubit_seconds else "; no times, so idling costs nothing here"),
        trap.qubits,
        (
            *places_on("rz", qubits, 0.0, 0.0),
            *places_on("r", qubits, trap.one_qubit_error, trap.one_qubit_seconds),
            *places_on("rzz", pairs, trap.two_qubit_error, trap.two_qubit_seconds),
        ),
        (each,) * trap.qubits,
        parallel_two_qubit_gates=trap.parallel_two_qubit_gates,
        price=trap.price,
        calibrated=trap.calibrated,
        source=trap.source,
    )
