"""Run schedules on the CPU: angles from symbols, blocks of examples over threads, gradients back to symbols.

Numba's compiled code is cached on disk beside the package (or in the user's cache directory); only the very first call on a
machine compiles. Each thread runs whole blocks, and every sum over examples is taken in one order, so that results do not
depend on how many threads there are except through the choice between narrow and wide schedules.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from qcascade.circuits.template import Expectations, Measurement
from qcascade.engine.program import LinearLayer, Program
from qcascade.engine.schedule import STATE, Schedule, schedule
from qcascade.engine.threads import shares, spread
from qcascade.errors import ExecutionError
from qcascade.memory import free_memory

Floats: TypeAlias = NDArray[Any]  # float32 or float64

WIDE_QUBITS = 14  # from here on eight examples' states are larger than a core's cache
NARROWEST_WIDE = 6  # below, a wide state has fewer rows than lanes
KEPT_BYTES = 2**28  # final states up to this size are kept for the backward pass; larger ones are simulated again
_TAPED_BYTES = 2**20  # angles up to this size are kept too
_SERIAL = 2.5e5  # rows times gates below which a second thread costs more than it brings
_CHECKED = 2**22  # amplitudes from which free memory is asked for


class Batch(NamedTuple):
    """How S·B examples share angles and amplitudes."""

    sets: int
    batch: int
    own_angles: bool  # angles depend on the data, so every example has its own
    amplitude_sets: int = 0
    amplitude_batch: int = 0

    @property
    def examples(self) -> int:
        """Examples in all."""
        return self.sets * self.batch

    def shape(self, data: Floats) -> tuple[int, int, int]:
        """(S, B, step of the data from set to set in examples)."""
        return self.sets, self.batch, self.batch if data.shape[0] > 1 else 0

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """(examples a row of angles, B, step of amplitudes from set to set, from example to example)."""
        return (
            1 if self.own_angles else self.batch,
            self.batch,
            self.amplitude_batch if self.amplitude_sets > 1 else 0,
            1 if self.amplitude_batch > 1 else 0,
        )


class Run(NamedTuple):
    """What is known of a run from its sizes and the number of threads: made once, and the same forward and backward.

    Attributes:
        arguments: What compiled circuits take first.
        shares: First and last block of every thread.
        angles: Derivatives of angles, in all.
        states: Numbers in all final states; `results` in what is measured.
    """

    arguments: tuple[Any, ...]
    shares: tuple[tuple[int, int], ...]
    angles: int
    states: int
    results: int


class Tape(NamedTuple):
    """What a forward run leaves for its backward run; angles and final states where they are small."""

    run: Run
    angles: tuple[Floats, Floats] | None
    states: Floats


class Simulation:
    """A program with a measurement, and what of them is made once: schedules and the affine map in sparse form."""

    def __init__(self, program: Program, measurement: Measurement | None) -> None:
        self.program, self.measurement = program, measurement
        self.uses_data, self.angles = program.uses_data, len(program.constants)
        self.width = len(measurement.paulis) if isinstance(measurement, Expectations) else 2**program.qubits
        self._schedules: dict[tuple[bool, bool], Schedule] = {}
        self._maps: dict[Any, tuple[Any, ...]] = {}

    def wide(self, count: int) -> bool:
        """Whether lanes are qubits or examples, whichever keeps threads and lanes busier."""
        threads, qubits = torch.get_num_threads(), self.program.qubits
        narrow = -(-count // (8 * threads)) * 8
        return qubits >= WIDE_QUBITS or (
            qubits >= NARROWEST_WIDE and 2 * -(-count // threads) < narrow and count < 8 * threads
        )

    def schedule(self, loaded: bool, count: int) -> Schedule:
        """The tables for a batch of this size."""
        wide = self.wide(count)
        plan = self._schedules.get((loaded, wide))
        if plan is None:
            plan = self._schedules[loaded, wide] = schedule(self.program, self.measurement, loaded, wide)
        return plan

    def memory(self, count: int, itemsize: int, *, loaded: bool, training: bool) -> dict[str, int]:
        """Bytes a run takes at its peak, by purpose, known before anything is made.

        "states" is the scratch of all threads: at most 3½ states a thread whatever the depth, a state being 2^q complex
        numbers for each example that a thread has in hand; "kept" are final states for the backward pass, "inputs" loaded
        amplitudes, "results" outputs.
        """
        size, wide = 2 ** (self.program.qubits + 1) * itemsize, self.wide(count)
        blocks, state = blocks_of(wide, count), size if wide else 8 * size
        kept = state * blocks if training and state * blocks <= KEPT_BYTES else 0
        permuted = wide and any(isinstance(layer, LinearLayer) for layer in self.program.layers)
        turned = isinstance(self.measurement, Expectations) and any(
            axis != "Z" for pauli in self.measurement.paulis for _, axis in pauli
        )
        scratch = 1 + (training and not kept) + (permuted or turned)
        weights = state // 2 if isinstance(self.measurement, Expectations) and (turned or not permuted) else 0
        result = self.width * itemsize * (2 if self.measurement is None else 1)
        return {
            "states": min(torch.get_num_threads(), max(blocks, 1)) * (scratch * state + weights),
            "kept": kept,
            "inputs": count * size if loaded else 0,
            "results": count * result,
        }

    def check_memory(self, count: int, itemsize: int, *, loaded: bool, training: bool) -> None:
        """Refuse a run that would not fit into what the machine, or container, has left.

        Raises:
            ExecutionError: More memory is needed than is free.
        """
        if count * 2**self.program.qubits < _CHECKED:
            return
        needed = sum(self.memory(count, itemsize, loaded=loaded, training=training).values())
        if needed > (free := free_memory()):
            raise ExecutionError(
                f"simulating {count} circuits of {self.program.qubits} qubits needs {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB is free; use a smaller batch, fewer qubits, fewer threads (torch.set_num_threads) or "
                "single precision."
            )

    def map(self, dtype: Any) -> tuple[Any, ...]:
        """The affine map row by row: row starts [A + 1], columns, halved coefficients, halved constants, data columns."""
        if dtype not in self._maps:
            rows, columns = np.nonzero(self.program.coefficients)
            values = (self.program.coefficients[rows, columns] / 2).astype(dtype)
            starts = np.searchsorted(rows, np.arange(self.angles + 1)).astype(np.int64)
            constants = (self.program.constants / 2).astype(dtype)
            self._maps[dtype] = (starts, columns.astype(np.int64), values, constants, len(self.program.data))
        return self._maps[dtype]

    def half_angles(self, batch: Batch, data: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Cosines and sines of half angles, flat [S·A] or, where the data matter, [S·B·A]."""
        half = np.empty((batch.examples if batch.own_angles else batch.sets) * self.angles, weights.dtype)
        _circuit().fill_angles(*self.map(weights.dtype), *batch.shape(data), batch.own_angles, data, weights, half)
        with np.errstate(invalid="ignore"):  # infinite angles become NaN and show in the results
            return np.cos(half), np.sin(half, out=half)

    def symbol_gradients(self, batch: Batch, angles: Floats, data: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Gradients in the shapes of data and weights from those of all examples' angles, flat [S·B·A]."""
        for_data, for_weights = np.zeros(data.shape, data.dtype), np.zeros(weights.shape, np.float64)
        _circuit().file_symbols(*self.map(weights.dtype), *batch.shape(data), angles, for_data, for_weights)
        return for_data, for_weights.astype(weights.dtype)


@lru_cache(maxsize=512)
def simulation(program: Program, measurement: Measurement | None) -> Simulation:
    """The one `Simulation` of a program and a measurement."""
    return Simulation(program, measurement)


def workers(plan: Schedule, blocks: int, threads: int) -> int:
    """Threads worth using."""
    if plan.rows * blocks * (len(plan.gates) + len(plan.terms) + plan.swaps + 1) < _SERIAL:
        return 1
    return max(1, min(threads, blocks))


def blocks_of(wide: bool, count: int) -> int:
    """Blocks that `count` examples fill."""
    return count if wide else -(-count // 8)


@lru_cache(maxsize=512)
def run_of(what: Simulation, batch: Batch, loaded: bool, threads: int) -> Run:
    """The one `Run` of a simulation for a batch."""
    plan = what.schedule(loaded, batch.examples)
    blocks = blocks_of(plan.wide, batch.examples)
    count = workers(plan, blocks, threads)
    return Run(
        (plan.wide, plan.qubits, batch.examples, *batch.strides, plan.angles, *plan.arguments),
        shares(blocks, count),
        batch.examples * plan.angles,
        blocks * plan.rows * 16,
        batch.examples * what.width * (2 if plan.measured == STATE else 1),
    )


def forward(
    what: Simulation, batch: Batch, data: Floats, weights: Floats, amplitudes: Floats, *, training: bool
) -> tuple[Floats, Tape | None]:
    """Run.

    Args:
        what: Program and measurement.
        batch: How the examples share inputs.
        data: [1|S, B, D].
        weights: [S, W].
        amplitudes: (re, im) pairs, flat, or empty.
        training: Whether `backward` may follow.

    Returns:
        What is measured, flat (amplitudes as pairs), and in training a tape.
    """
    run, dtype = run_of(what, batch, len(amplitudes) > 0, torch.get_num_threads()), weights.dtype
    cos, sin = what.half_angles(batch, data, weights)
    keep = training and run.states * dtype.itemsize <= KEPT_BYTES
    kept, out = np.empty(run.states if keep else 0, dtype), np.empty(run.results, dtype)
    spread(_circuit().forward, run.shares, *run.arguments, keep, cos, sin, amplitudes, kept, out)
    if what.angles and np.isnan(cos.sum()):  # also those of phases that were left out because nothing shows them
        per_example = np.isnan(cos.reshape(-1, what.angles).sum(axis=1))
        out.reshape(per_example.size, -1)[per_example] = np.nan
    if not training:
        return out, None
    return out, Tape(run, (cos, sin) if cos.nbytes <= _TAPED_BYTES else None, kept)


def backward(
    what: Simulation,
    batch: Batch,
    data: Floats,
    weights: Floats,
    amplitudes: Floats,
    tape: Tape | None,
    cotangents: Floats,
    *,
    for_amplitudes: bool,
) -> tuple[Floats, Floats, Floats]:
    """Gradients for data and weights in their shapes, and for every example's amplitudes, flat (empty if not asked for).

    The tape is used up: its states are undone where they are.
    """
    dtype = weights.dtype
    if tape is None:
        tape = Tape(run_of(what, batch, len(amplitudes) > 0, torch.get_num_threads()), None, np.empty(0, dtype))
    run, states = tape.run, tape.states
    cos, sin = tape.angles or what.half_angles(batch, data, weights)
    for_angles = np.empty(run.angles, dtype)
    for_states = np.empty(batch.examples * 2 ** (what.program.qubits + 1) if for_amplitudes else 0, dtype)
    spread(
        _circuit().backward,
        run.shares,
        *run.arguments,
        len(states) > 0,
        cos,
        sin,
        amplitudes,
        states,
        cotangents,
        for_angles,
        for_states,
    )
    return *what.symbol_gradients(batch, for_angles, data, weights), for_states


@cache
def _circuit() -> Any:
    """The compiled circuits, loaded with the first run."""
    from qcascade.engine import circuit

    return circuit
