"""Names of circuits, the journal in memory against the one in a file, and samples drawn by seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcascade.dispatch import Journal
from qcascade.dispatch.content import as_bytes, distinct, names
from qcascade.dispatch.journal import Intent, Spent
from qcascade.dispatch.memory import MemoryJournal
from qcascade.errors import ExecutionError
from qcascade.executors.local import drawn
from qcascade.executors.sampling import FEW, _philox


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 3))
def test_distinct_names_are_those_of_a_dictionary(values: list[int], width: int) -> None:
    rows = np.array(values, np.float64)[:, None] * np.ones((1, width))
    found = as_bytes(names(b"circuit", rows))
    first, which = distinct(names(b"circuit", rows))
    wanted: dict[bytes, int] = {}
    for place, name in enumerate(found):
        wanted.setdefault(name, place)
    assert first.tolist() == list(wanted.values())
    assert [found[first[one]] for one in which] == found
    assert len(wanted) == (len(set(values)) if width else min(1, len(values)))


def test_names_tell_shifts_prefixes_secrets_and_orders_apart() -> None:
    base = np.random.default_rng(0).uniform(-3, 3, (50, 1, 20))
    shifts = np.concatenate([np.eye(20) * np.pi / 2, -np.eye(20) * np.pi / 2, np.eye(20) * 1e-15])
    rows = (base + shifts).reshape(-1, 20)
    rows = np.concatenate([rows, rows[:, ::-1]])
    different = len(np.unique(rows, axis=0))
    assert len(distinct(names(b"a", rows))[0]) == different
    every = np.concatenate([names(b"a", rows), names(b"b", rows), names(b"a", rows, secret=b"s")])
    assert len(distinct(every)[0]) == 3 * different
    bits = np.unpackbits(names(b"a", rows).view(np.uint8), axis=1)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(different)


def test_signed_zeros_are_different_contents() -> None:
    assert len(distinct(names(b"a", np.array([[0.0], [-0.0]])))[0]) == 2


def intent(*keys: bytes) -> Intent:
    return Intent(keys, "e|d", 10, 2.0, ((len(keys), 1),), b"request")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_both_journals_keep_the_same_books(kind: str, tmp_path: Path) -> None:
    journal = MemoryJournal() if kind == "memory" else Journal(tmp_path / "j.sqlite")
    a, b, c = (bytes([number]) * 16 for number in range(3))
    where, new = journal.claim([a, b], lambda missing: [intent(*missing)], lambda spent: None)
    assert (where.tolist(), new) == ([[1, 0], [1, 1]], [1])
    assert journal.is_working(1) and journal.record(1).state == "submitting"

    def too_much(spent: Spent) -> None:
        assert spent == Spent(2, 30, 4.0)
        raise ExecutionError("too much")

    with pytest.raises(ExecutionError, match="too much"):
        journal.claim([b, c], lambda missing: [intent(*missing)], too_much)
    assert journal.spent() == Spent(1, 20, 2.0)
    assert not journal.adopt(journal.record(1))
    journal.submitted(1, "h")
    journal.noted(1, "slow")
    record = journal.record(1)
    assert (record.state, record.handle, record.note, record.shapes, record.open) == (
        "submitted",
        "h",
        "slow",
        ((2, 1),),
        True,
    )
    journal.rest(1)
    assert journal.adopt(record) and not journal.adopt(record)
    assert journal.result(1) is None
    assert journal.done(1, b"result", 9, note="short") and not journal.done(1, b"result", 9)
    assert (journal.result(1), journal.record(1).taken, journal.record(1).state) == (b"result", 9, "done")
    assert not journal.release(1, "failed", "")
    where, new = journal.claim([c, b], lambda missing: [intent(*missing)], lambda spent: None)
    assert where.tolist() == [[new[0], 0], [1, 1]]
    tag = journal.record(new[0]).tag
    journal.again(new[0], "once more")
    assert journal.record(new[0]).tag != tag
    assert journal.release(new[0], "failed", "gone") and not journal.done(new[0], b"late", None)
    assert journal.result(new[0]) is None
    where, again = journal.claim([c], lambda missing: [intent(*missing)], lambda spent: None)
    assert again and where.tolist() == [[again[0], 0]]
    assert [record.number for record in journal.records(("failed",))] == new
    with pytest.raises(ExecutionError, match="no submission 99"):
        journal.record(99)
    assert journal.prune(keep=1) == 1 and journal.get(1) is None
    assert journal.claim([a], lambda missing: [], lambda spent: None)[0].tolist() == [[-1, -1]]
    journal.close()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_budgets_count_what_a_journal_forgot(kind: str, tmp_path: Path) -> None:
    journal = MemoryJournal() if kind == "memory" else Journal(tmp_path / "j.sqlite")
    for number in range(5):
        _, (one,) = journal.claim([bytes([number]) * 16], lambda missing: [intent(*missing)], lambda spent: None)
        journal.submitted(one, "h")
        journal.done(one, b"", 10)
        journal.prune(keep=1)
    assert len(journal.records()) == 1
    assert journal.spent() == Spent(5, 50, 10.0)
    assert (journal.prune(), journal.prune(), journal.records()) == (1, 0, [])
    assert journal.spent() == Spent(5, 50, 10.0)
    _, (last,) = journal.claim([b"k" * 16], lambda missing: [intent(*missing)], lambda spent: None)
    assert last == 6  # numbers are not given again
    assert journal.release(last, "failed", "nothing was sent") and journal.prune() == 1
    assert journal.spent() == Spent(5, 50, 10.0)
    if kind == "file":
        assert Journal(tmp_path / "j.sqlite").spent() == Spent(5, 50, 10.0)


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ],
)
def test_random_numbers_are_those_of_random123(counter: list[int], key: list[int], wanted: str) -> None:
    block = np.empty(4, np.uint64)
    _philox(np.array(counter, np.uint64), np.array(key, np.uint64), block)
    assert " ".join(f"{int(word):08x}" for word in block) == wanted


@pytest.mark.parametrize("shots", [100, FEW, FEW + 1])
def test_samples_follow_their_probabilities_and_depend_on_their_seed_alone(shots: int) -> None:
    random = np.random.default_rng(0)
    chance = np.tile([0.0, 0.3, 0.05, 0.25, 0.0, 0.4, 0.0, 0.0], (2000, 1))
    seeds = [random.bytes(16) for _ in chance]
    counts = drawn(chance, shots, seeds)
    assert (counts.sum(1) == shots).all() and (counts[:, chance[0] == 0] == 0).all()
    np.testing.assert_array_equal(drawn(chance[7:9], shots, seeds[7:9]), counts[7:9])
    variance = shots * chance[0] * (1 - chance[0])
    assert (np.abs(counts.mean(0) - shots * chance[0]) <= 5 * np.sqrt(variance / len(counts))).all()
    drawable = variance > 0
    np.testing.assert_allclose(counts.var(0)[drawable], variance[drawable], rtol=0.2)
    correlation = np.corrcoef(counts[:-1, 1], counts[1:, 1])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(len(counts))
