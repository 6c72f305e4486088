"""Compiled simulation in the Pauli basis: a row's whole circuit at once, while its state is in the processor's cache.

States and instructions are those of `pauli_program`. Every row is simulated by itself, so that its results are the same bits whatever
runs beside it; threads have rows of their own, and a state each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qcascade.engine import simd
from qcascade.engine.gates import clear, inner, jit
from qcascade.engine.threads import shares, spread
from qcascade.executors.pauli_program import EXCHANGE_HIGH, EXCHANGE_LOW, JOIN, READ, TWO, Matrix, Program
from qcascade.executors.pauli_tiles import LANES, LINE, exchange_high, exchange_low, multiply, slot

_SERIAL = 1e6  # rows times values times instructions below which a second thread costs more than it brings


def chances(program: Program, angles: Matrix, *, double: bool) -> NDArray[Any]:
    """Chances [N, 2^m] of every reading, in the order of `program.read`, at angles [N, A]; float64 if `double`, else float32."""
    dtype = np.float64 if double else np.float32
    angles = np.ascontiguousarray(angles)
    with np.errstate(invalid="ignore"):  # infinite angles become NaN and show in the results
        cosines, sines = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    found = np.empty((len(angles), 2 ** len(program.read)), dtype)
    work = len(angles) * program.values * len(program.instructions)
    threads = max(1, min(torch.get_num_threads(), len(angles))) if work > _SERIAL else 1
    tables = program.instructions, program.positions, program.entries.astype(dtype)
    spread(simulate, shares(len(angles), threads), program.qubits, program.values, *tables, cosines, sines, found)
    return found


@jit
def simulate(start, stop, qubits, values, instructions, positions, entries, cosines, sines, found):
    """Fill rows start … stop − 1 of `found`; floats are all of one type."""
    room = np.empty(values + LINE, entries.dtype)
    skipped = -(room.ctypes.data // room.itemsize) & (LINE // room.itemsize - 1)
    state = room[skipped : skipped + values]
    waiting, product = np.empty(32 * qubits, entries.dtype), np.empty(32, entries.dtype)
    wide, matrix = np.empty(64, entries.dtype), np.empty(256, entries.dtype)
    for row in range(start, stop):
        for qubit in range(qubits):
            begin_anew(waiting, 32 * qubit)
        state[0], size = 1, np.int64(1)  # a literal would have callees compiled once more
        for k in range(len(instructions)):
            kind, own, angle = instructions[k, 0], 32 * instructions[k, 1], instructions[k, 3]
            begin, end, place, other = instructions[k, 4], instructions[k, 5], instructions[k, 6], instructions[k, 7]
            cos, sin = entries.dtype.type(0), entries.dtype.type(0)
            if angle >= 0:
                cos, sin = cosines[row, angle], sines[row, angle]
            if kind == JOIN:
                join(state, size, waiting, own)
                size *= 4
            elif kind == TWO:
                gather(positions, entries, begin, end, cos, sin, waiting, own, 32 * instructions[k, 2], wide, matrix)
                apply(matrix, state, size, place, other, instructions[k, 8])
            else:
                follow(positions, entries, begin, end, cos, sin, waiting, own, product)
                if kind == READ:
                    read(state, size, place, product, other)
                    size = size // 4 * other
                else:
                    for e in range(0, 32, 8):
                        simd.store(waiting, own + e, simd.load(product, e))
        for e in range(size):
            found[row, e] = state[slot(e)]


@inner
def begin_anew(waiting, own):
    """Put the identity [4, 4] where a qubit's gates wait: rows of four numbers, each twice, so that it fills a vector."""
    for i in range(4):
        for j in range(8):
            waiting[own + 8 * i + j] = i == j & 3


@inner
def follow(positions, entries, begin, end, cos, sin, waiting, own, product):
    """Multiply a matrix of at most four rows by a qubit's waiting gates."""
    clear(product, np.int64(0), len(product))
    for k in range(begin, end):
        value = simd.splat(entries[k, 0] + cos * entries[k, 1] + sin * entries[k, 2])
        i, j = 8 * positions[k, 0], own + 8 * positions[k, 1]
        simd.store(product, i, simd.fma(value, simd.load(waiting, j), simd.load(product, i)))


@inner
def gather(positions, entries, begin, end, cos, sin, waiting, own, other, wide, matrix):
    """Multiply a matrix [16, 16] by the Kronecker product of two qubits' waiting gates, which wait no longer."""
    for i in range(4):
        for j in range(16):
            wide[16 * i + j] = waiting[own + 8 * i + j // 4]
    clear(matrix, np.int64(0), len(matrix))
    for k in range(begin, end):
        value = simd.splat(entries[k, 0] + cos * entries[k, 1] + sin * entries[k, 2])
        i, j = 16 * positions[k, 0], positions[k, 1]
        right = simd.mul(value, simd.load(waiting, other + 8 * (j & 3)))
        for half in range(0, 16, 8):
            left = simd.load(wide, 16 * (j >> 2) + half)
            simd.store(matrix, i + half, simd.fma(right, left, simd.load(matrix, i + half)))
    begin_anew(waiting, own)
    begin_anew(waiting, other)


@inner
def join(state, size, waiting, own):
    """Add a qubit, |0⟩ with its waiting gates, as the highest digit."""
    for i in range(4):
        waiting[own + 8 * i] += waiting[own + 8 * i + 3]
    if size >= simd.LANES:
        for e in range(0, size, simd.LANES):
            old = simd.load(state, slot(e))
            for i in range(4):
                simd.store(state, slot(i * size + e), simd.mul(simd.splat(waiting[own + 8 * i]), old))
    else:
        for e in range(4 * size - 1, -1, -1):
            state[e] = waiting[own + 8 * (e // size)] * state[e % size]
    begin_anew(waiting, own)


@inner
def apply(matrix, state, size, place, other, exchanges):
    """Multiply two digits by a matrix [16, 16]; their places are multiples of LANES."""
    low, high = (place, other) if place < other else (other, place)
    for a in range(0, size, 4 * high):
        for b in range(a, a + high, 4 * low):
            for first in range(b, b + low, LANES):
                if exchanges & EXCHANGE_LOW:
                    for k in range(4):
                        exchange_low(state, first + k * other, place)
                if exchanges & EXCHANGE_HIGH:
                    for k in range(4):
                        exchange_high(state, first + k * place, other)
                multiply(matrix, state, first, place, other)


@inner
def read(state, size, place, end, width):
    """Multiply a digit by `end` [width, 4], in place: values are written no earlier than what they overwrite is used."""
    for block in range(size // (4 * place)):
        source, target = 4 * place * block, width * place * block
        if place >= simd.LANES:
            for e in range(0, place, simd.LANES):
                a, b = simd.load(state, slot(source + e)), simd.load(state, slot(source + e + place))
                c, d = simd.load(state, slot(source + e + 2 * place)), simd.load(state, slot(source + e + 3 * place))
                for k in range(width):
                    total = simd.fma(simd.splat(end[8 * k + 1]), b, simd.mul(simd.splat(end[8 * k]), a))
                    total = simd.fma(simd.splat(end[8 * k + 3]), d, simd.fma(simd.splat(end[8 * k + 2]), c, total))
                    simd.store(state, slot(target + k * place + e), total)
        else:
            for e in range(place):
                a, b = state[slot(source + e)], state[slot(source + e + place)]
                c, d = state[slot(source + e + 2 * place)], state[slot(source + e + 3 * place)]
                for k in range(width):
                    total = end[8 * k] * a + end[8 * k + 1] * b + end[8 * k + 2] * c + end[8 * k + 3] * d
                    state[slot(target + k * place + e)] = total
