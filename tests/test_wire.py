"""The wire format: every bit comes back, damage is one clear error, and it is small."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qcascade.dispatch.wire import (
    Block,
    counts_limit,
    decode_angles,
    decode_circuit,
    decode_counts,
    decode_samples,
    encode_angles,
    encode_circuit,
    encode_counts,
    encode_samples,
)
from qcascade.errors import ExecutionError

VERSION_1 = (  # angles as version 1 wrote them: byte planes, of changes, and of floats
    "5143570101e20128b52ffd24e2250300b2c5131fa037ad0188ff9b2cfdf70de20083aa5c034c740f958dd9ffffff7f6b2b5b0af7393bdff4d4dcdcdd9595e545c1"
    "5834aa2b6929f33ca7a6a2a30c049959b3c74a128883a140180802800459765c0106004f1566a78980e18294296580b81db803d77267e1"
)
TABLES = st.lists(
    st.integers(0, 6).flatmap(
        lambda bits: arrays.arrays(
            np.float64,
            st.tuples(st.integers(0, 9), st.just(2**bits)),
            elements=st.one_of(st.just(0.0), st.integers(0, 2**40).map(float), st.floats(allow_nan=False)),
        )
    ),
    max_size=4,
)
ANGLES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(0, 9), st.integers(0, 7)),
    elements=st.one_of(st.floats(), st.floats(width=32)),
    fill=st.nothing(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), ANGLES), max_size=4))
def test_angles_come_back_bit_for_bit(blocks: list[tuple[bytes, np.ndarray]]) -> None:
    found = decode_angles(encode_angles([Block(*block) for block in blocks]))
    assert [block.digest for block in found] == [digest for digest, _ in blocks]
    for block, (_, angles) in zip(found, blocks, strict=True):
        assert block.angles.shape == angles.shape
        assert block.angles.tobytes() == angles.tobytes()


@st.composite
def shifted_rows(draw: st.DrawFn) -> np.ndarray:
    """Rows that change in few places, some back to what they were two rows before."""
    rows, width = draw(st.integers(2, 12)), draw(st.integers(4, 20))
    table = np.repeat(draw(arrays.arrays(np.float64, (1, width), elements=st.floats())), rows, 0)
    for row in range(1, rows):
        table[row] = table[row - 1]
        for column in draw(st.lists(st.integers(0, width - 1), max_size=3)):
            back = row > 1 and draw(st.booleans())
            table[row, column] = table[row - 2, column] if back else draw(st.floats())
    return table


@settings(max_examples=60, deadline=None)
@given(st.lists(shifted_rows(), min_size=1, max_size=3), st.integers(1, 3))
def test_rows_that_repeat_come_back_bit_for_bit(tables: list[np.ndarray], times: int) -> None:
    blocks = [Block(bytes([place] * 16), table) for table in tables for place in range(times)]
    message = encode_angles(blocks)
    for block, sent in zip(decode_angles(message), blocks, strict=True):
        assert (block.digest, block.angles.tobytes()) == (sent.digest, sent.angles.tobytes())
    once = encode_angles(blocks[::times])
    assert len(message) < len(once) + 40 * len(blocks)  # the same angles are sent once


def test_messages_of_version_1_are_read() -> None:
    rows = np.repeat(np.array([[0.1, 0.2, 0.3]]), 5, 0)
    rows[np.arange(3), np.arange(3)] += 1.5
    message = bytes.fromhex(VERSION_1)
    assert message[3] == 1
    for block, expected in zip(decode_angles(message), (rows, np.eye(2) / 3, np.eye(2)), strict=True):
        np.testing.assert_array_equal(block.angles, expected)


@settings(max_examples=60, deadline=None)
@given(TABLES)
def test_counts_come_back_bit_for_bit(tables: list[np.ndarray]) -> None:
    shapes = [(len(table), table.shape[1].bit_length() - 1) for table in tables]
    found = decode_counts(encode_counts(tables), limit=counts_limit(shapes))
    assert [table.tobytes() for table in found] == [table.tobytes() for table in tables]
    assert [table.shape for table in found] == [table.shape for table in tables]


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(0, 20), st.integers(0, 9))))
def test_samples_come_back_in_order(samples: np.ndarray) -> None:
    found = decode_samples(encode_samples(samples))
    assert found.shape == samples.shape
    assert (found == samples).all()


DECODERS = [decode_circuit, decode_angles, decode_counts, decode_samples]
WHOLE = [
    encode_circuit(bytes(16), "OPENQASM 2.0;"),
    encode_angles(
        [
            Block(bytes(16), np.random.default_rng(0).normal(size=(7, 5))),
            *[Block(bytes(16), np.linspace(0, 1, 40).reshape(1, 40) + np.eye(8, 40))] * 2,
        ]
    ),
    encode_counts([np.eye(8) * 9, np.ones((3, 2)), np.full((2, 4), 0.5)]),
    encode_samples(np.eye(9, dtype=bool)),
]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_one_clear_error_or_nothing(data: st.DataObject) -> None:
    kind = data.draw(st.integers(0, 3))
    message = bytearray(WHOLE[kind])
    if data.draw(st.booleans()):
        message = message[: data.draw(st.integers(0, len(message) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ExecutionError):  # anything else fails the test
        assert DECODERS[kind](bytes(message), limit=2**20) is not None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), st.binary(max_size=60))
def test_hostile_bodies_are_one_clear_error(kind: int, body: bytes) -> None:
    from qcascade.dispatch.wire import _packed

    with contextlib.suppress(ExecutionError):
        assert DECODERS[kind](_packed(kind, body), limit=2**16) is not None


def test_memory_is_bounded() -> None:
    bomb = encode_counts([np.zeros((2000, 2**12))])  # 64 MiB in a few bytes
    assert len(bomb) < 1000
    tracemalloc.start()
    with pytest.raises(ExecutionError, match="more than 1000000 bytes"):
        decode_counts(bomb, limit=10**6)
    assert tracemalloc.get_traced_memory()[1] < 5 * 10**6
    tracemalloc.stop()


def test_versions_and_kinds() -> None:
    later = bytearray(WHOLE[1])
    later[3] = 9
    with pytest.raises(ExecutionError, match="version 9; versions 1 and 2 are known"):
        decode_angles(bytes(later))
    with pytest.raises(ExecutionError, match="of kind 1, and 2 was expected"):
        decode_counts(WHOLE[1])
    with pytest.raises(ExecutionError, match="16 bytes, got 3"):
        encode_circuit(b"abc", "")
    with pytest.raises(ExecutionError, match="3 wide"):
        encode_counts([np.zeros((1, 3))])


def test_the_rows_of_a_shift_rule_are_small() -> None:
    angles = np.random.default_rng(0).uniform(-3, 3, (1, 40))
    rows = np.repeat(angles, 80, 0)
    rows[np.arange(40), np.arange(40)] += np.pi / 2
    rows[np.arange(40, 80), np.arange(40)] -= np.pi / 2
    assert len(encode_angles([Block(bytes(16), rows)])) < 0.15 * rows.nbytes


def test_many_small_blocks() -> None:
    blocks = [Block(bytes(16), np.zeros((1, 3)))] * 10_000
    assert len(decode_angles(encode_angles(blocks))) == 10_000
