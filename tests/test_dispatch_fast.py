"""Short cuts of the dispatcher and the wire format give what the long ways give."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pytket.circuit import Circuit
from sympy import Symbol, pi

from qcascade.circuits.observables import one_and_two_body
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.dispatch import DispatchedExecutor
from qcascade.dispatch.content import distinct
from qcascade.dispatch.wire import Block, decode_angles, decode_counts, encode_angles, encode_counts
from qcascade.executors import Job, NoisyExecutor, ShotsExecutor
from qcascade.targets import Gate, QubitProperties, Target

Pair = st.tuples(st.integers(0, 6), st.integers(0, 3))


@given(rows=st.lists(Pair, max_size=30) | st.lists(Pair, max_size=7, unique_by=lambda pair: pair[0]))
def test_distinct_names(rows: list[tuple[int, int]]) -> None:
    first, which = distinct(np.array(rows, np.uint64).reshape(-1, 2))
    expected = list(dict.fromkeys(rows))
    assert [rows[place] for place in first] == expected
    assert [expected[place] for place in which] == rows


def test_new_known_and_repeated_circuits_have_the_same_results() -> None:
    w = Symbol("w")
    template = CircuitTemplate(
        Circuit(2).Ry(w / pi, 0).CX(0, 1), (), ("w",), measurement=Expectations(one_and_two_body(2))
    )
    executor = DispatchedExecutor(ShotsExecutor(60, seed=3))
    width = len(executor.prepare(template).angles.constants)
    angles = np.random.default_rng(0).uniform(-3, 3, (12, width))
    every = DispatchedExecutor(ShotsExecutor(60, seed=3)).run([Job(template, angles)])[0]  # all new
    assert (every.run.circuits, every.run.reused) == (12 * 3, 0)
    for rows in ([3, 1], [1, 2, 3], [5, 5, 2, 0], [11, 10, 9, 8, 7, 6, 4], list(range(12))):
        found = executor.run([Job(template, angles[rows])])[0]
        np.testing.assert_array_equal(found.values, every.values[rows])
    assert found.run.reused == 12 * 3 and found.run.submissions == 0


def test_angles_changed_behind_a_submission_change_nothing() -> None:
    template = CircuitTemplate(Circuit(1).Ry(Symbol("w") / pi, 0), (), ("w",))
    executor = DispatchedExecutor(ShotsExecutor(60, seed=3))
    angles = np.linspace(-1, 1, 5)[:, None] * np.ones(len(executor.prepare(template).angles.constants))
    expected = DispatchedExecutor(ShotsExecutor(60, seed=3)).run([Job(template, angles.copy())])[0].values

    class Late(ShotsExecutor):
        def submit(self, *arguments: object, **options: object) -> str:
            angles[:] = 9.0
            return super().submit(*arguments, **options)  # type: ignore[arg-type]

    late = DispatchedExecutor(Late(60, seed=3))
    np.testing.assert_array_equal(late.start([Job(template, angles)]).result()[0].values, expected)


def test_messages_of_several_threads_are_those_of_one() -> None:
    random = np.random.default_rng(0)
    tables = [random.multinomial(50, np.full(8, 1 / 8), 40).astype(float) for _ in range(24)]
    blocks = [Block(bytes(16), random.uniform(-3, 3, (20, 5))) for _ in range(24)]
    alone = [(encode_counts([table]), encode_angles([block])) for table, block in zip(tables, blocks, strict=True)]
    with ThreadPoolExecutor(6) as pool:
        found = list(
            pool.map(lambda one: (encode_counts([one[0]]), encode_angles([one[1]])), zip(tables, blocks, strict=True))
        )
    assert found == alone
    for (counts, angles), table, block in zip(found, tables, blocks, strict=True):
        np.testing.assert_array_equal(decode_counts(counts)[0], table)
        np.testing.assert_array_equal(decode_angles(angles)[0].angles, block.angles)


def test_results_under_other_noise_are_others() -> None:
    def target(error: float) -> Target:
        gates = tuple(Gate(name, (0,), e) for name, e in (("sx", error), ("x", error), ("rz", 0.0)))
        return Target("one", "one qubit", 1, gates, (QubitProperties(0.02),))

    one, same, other = (NoisyExecutor(target(error), 10, seed=0) for error in (1e-3, 1e-3, 2e-3))
    assert one.identity == same.identity != other.identity
