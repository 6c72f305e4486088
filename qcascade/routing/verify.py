"""Prove that a compiled circuit does what its source does, by simulating both on the wires that carry gates.

From |0…0⟩ the states must overlap by 1, or, where only outcomes are kept, the probabilities of the outcomes agree; where
the unitary is kept, the same is asked of random product states. Variable angles are given random values. Wires that a
circuit uses beside the source's must come back to |0⟩.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import lower, simulate
from qcascade.errors import CircuitError
from qcascade.routing.flat import Flat, to_pytket
from qcascade.routing.problem import Placed, Problem

MOST_WIRES = 22  # 2^22 amplitudes take 64 MiB
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a compiled circuit is proven to do what its source does.

    Args:
        verified: True: simulated and equal; False: not simulated, being too wide; None: not asked for.
        reason: The same in words.
    """

    verified: bool | None = None
    reason: str = "not proven: verification was not asked for"


def verify(problem: Problem, placed: Placed, *, seed: int = 0) -> Proof:
    """Compare a compiled circuit with its source.

    Returns:
        That they are equal, or that there are too many wires to simulate.

    Raises:
        CircuitError: They differ.
    """
    source, compiled = problem.source, placed.circuit
    wires = [*placed.start, *sorted({*compiled.used, *placed.end} - {*placed.start})]
    if len(wires) > MOST_WIRES:
        return Proof(False, f"not proven: {len(wires)} active wires, at most {MOST_WIRES} are simulated")
    place = {wire: number for number, wire in enumerate(wires)}
    compiled = compiled.moved(place, len(wires))
    random = np.random.default_rng(seed)
    values = random.uniform(
        -np.pi, np.pi, 1 + max((v for o in source.ops for a in o.angles for v, _ in a.terms), default=0)
    )
    source, compiled = source.bound(values.tolist()), compiled.bound(values.tolist())
    starts: list[list[NDArray[np.complex128]]] = [[np.array([1.0, 0.0], dtype=np.complex128)] * source.width]
    if problem.keep == "unitary":
        for _ in range(2):
            drawn = random.normal(size=(source.width, 2)) + 1j * random.normal(size=(source.width, 2))
            starts.append(list(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)))
    for start in starts:
        wanted = simulated(source, start, problem.ends)[..., 0]
        got = simulated(compiled, start, [place[node] for node in placed.end])
        if problem.keep == "outcomes":
            read, everything = problem.measured, (np.abs(got) ** 2).sum(-1)
            others = tuple(q for q in range(source.width) if q not in read)
            overlap = float(np.sqrt((np.abs(wanted) ** 2).sum(others) * everything.sum(others)).sum())
        else:
            overlap = float(abs(np.vdot(wanted, got[..., 0])))
        if abs(overlap - 1) > _CLOSE:
            raise CircuitError(
                f"the compiled circuit differs from its source: the overlap is {overlap:.6f} instead of 1. "
                "This is a fault of the compilation; please report the circuit."
            )
    return Proof(True, f"proven equal to its source by simulation of {len(wires)} active wires")


def simulated(flat: Flat, start: Sequence[NDArray[np.complex128]], ends: Sequence[int]) -> NDArray[np.complex128]:
    """The final state: one axis for each of `ends`, in order, and a last one for all other wires.

    Args:
        flat: Numbers only.
        start: States of the first wires; the others start in |0⟩.
        ends: Wires whose axes come first.
    """
    amplitudes = np.ones(1, dtype=np.complex128)
    for wire in range(flat.width):
        one = start[wire] if wire < len(start) else np.array([1.0, 0.0])
        amplitudes = (amplitudes[:, None] * one).reshape(-1)
    program = lower(CircuitTemplate(to_pytket(flat), (), ()))
    final = simulate(program, None, amplitudes=torch.from_numpy(amplitudes)[None])[0, 0].numpy()
    rest = [wire for wire in range(flat.width) if wire not in ends]
    state: NDArray[np.complex128] = final.reshape((2,) * flat.width).transpose([*ends, *rest])
    return state.reshape(*(2,) * len(ends), -1)
