"""Compiled measurement: from final states to what is measured, and from its cotangent to that of the states.

Expectation values of strings along Z are entries of the Walsh–Hadamard transform of the probabilities. Only the butterflies
that lead to a wanted entry are done: those of `Schedule.butterflies`, from the largest down, and in reverse for the cotangent.
"""

from __future__ import annotations

import numpy as np

from qcascade.engine import simd
from qcascade.engine.gates import ROW, apply_gate, apply_lane_gate, highest_bit, inner
from qcascade.engine.schedule import BOTH, GENERAL, PROBABILITIES, SUM

_HALF = 0.7071067811865476


@inner
def change_basis(bases, group, state, rows, sign, work):
    """Turn the qubits measured along X or Y in a group to Z; sign −1 turns them back."""
    zero = np.int64(0)
    for k in range(len(bases)):
        if bases[k, 0] == group:
            pair, select, bit, axis = bases[k, 1], bases[k, 2], bases[k, 3], bases[k, 4]
            for lane in range(8):  # X: RY(−π/2), so b = −sin; Y: RX(π/2), so b = −i sin
                br, bi = (-sign * _HALF, 0.0) if axis == 0 else (0.0, -sign * _HALF)
                if bit and not lane & bit:
                    br = -br
                work[lane], work[8 + lane], work[16 + lane], work[24 + lane] = _HALF, 0.0, br, bi
            if bit:
                apply_lane_gate(state, zero, rows, bit, work, zero)
            else:
                h, kind = highest_bit(pair), np.int64(GENERAL)
                apply_gate(state, zero, 2 * h, rows // (2 * h), h, pair, select, kind, work, zero)


@inner
def has_basis(bases, group):
    """Whether a group measures any qubit along X or Y."""
    found = False
    for k in range(len(bases)):
        found |= bases[k, 0] == group
    return found


@inner
def squares(state, rows, out):
    """|amplitude|² of every row."""
    for r in range(rows):
        re, im = simd.load(state, r * ROW), simd.load(state, r * ROW + 8)
        simd.store(out, r * 8, simd.fma(im, im, simd.mul(re, re)))


@inner
def scale(state, rows, weights, out):
    """Set out = 2 · weights · state, row by row: the cotangent of Σ weights |ψ|²."""
    for r in range(rows):
        w = simd.load(weights, r * 8)
        w = simd.add(w, w)
        simd.store(out, r * ROW, simd.mul(w, simd.load(state, r * ROW)))
        simd.store(out, r * ROW + 8, simd.mul(w, simd.load(state, r * ROW + 8)))


@inner
def accumulate(target, source, count):
    """Add source to target over `count` numbers, a multiple of eight."""
    for i in range(0, count, 8):
        simd.store(target, i, simd.add(simd.load(target, i), simd.load(source, i)))


@inner
def transform(values, butterflies, group):
    """Bring the wanted entries of the Walsh–Hadamard transform of rows of eight values to the rows of their masks."""
    for k in range(len(butterflies)):
        first, half, parts = butterflies[k, 1], butterflies[k, 2], butterflies[k, 3]
        if butterflies[k, 0] == group:
            for r in range(first, first + half):
                a, b = simd.load(values, r * 8), simd.load(values, (r + half) * 8)
                if parts & SUM:
                    simd.store(values, r * 8, simd.add(a, b))
                if parts != SUM:
                    simd.store(values, (r + half) * 8, simd.sub(a, b))
            if not half:
                transform_lanes(values, first * 8)


@inner
def spread(values, butterflies, group):
    """The adjoint of `transform`; rows that it did not fill need not be zero."""
    for k in range(len(butterflies) - 1, -1, -1):
        first, half, parts = butterflies[k, 1], butterflies[k, 2], butterflies[k, 3]
        if butterflies[k, 0] == group:
            if not half:
                transform_lanes(values, first * 8)
            for r in range(first, first + half):
                a, b = simd.load(values, r * 8), simd.load(values, (r + half) * 8)
                if parts == SUM:
                    simd.store(values, (r + half) * 8, a)
                elif parts == BOTH:
                    simd.store(values, r * 8, simd.add(a, b))
                    simd.store(values, (r + half) * 8, simd.sub(a, b))
                else:
                    simd.store(values, r * 8, b)
                    simd.store(values, (r + half) * 8, simd.sub(simd.sub(b, b), b))


@inner
def transform_lanes(values, place):
    """The Walsh–Hadamard transform of one row over its lanes, its own adjoint."""
    for bit in (1, 2, 4):
        for lane in range(8):
            if not lane & bit:
                a, b = values[place + lane], values[place + (lane | bit)]
                values[place + lane], values[place + (lane | bit)] = a + b, a - b


@inner
def read_strings(strings, group, weights, wide, examples, width, out):
    """Expectation values of a group's strings from transformed probabilities."""
    for k in range(len(strings)):
        if strings[k, 0] == group:
            for lane in range(8):
                if examples[lane] >= 0:
                    place = strings[k, 1] * 8 + (strings[k, 2] if wide else lane)
                    out[examples[lane] * width + strings[k, 3]] = weights[place]


@inner
def file_strings(strings, group, weights, wide, examples, width, cotangents):
    """The adjoint of `read_strings`, onto rows that nothing else has touched."""
    for k in range(len(strings)):
        if strings[k, 0] == group:
            weights[strings[k, 1] * 8 : strings[k, 1] * 8 + 8] = 0
    for k in range(len(strings)):
        if strings[k, 0] == group:
            for lane in range(8):
                if examples[lane] >= 0:
                    place = strings[k, 1] * 8 + (strings[k, 2] if wide else lane)
                    weights[place] += cotangents[examples[lane] * width + strings[k, 3]]


@inner
def write_out(measured, state, rows, wide, examples, images, out):
    """Probabilities, or amplitudes as (re, im) pairs, in the order of logical basis states."""
    size = rows * 8 if wide else rows
    for i in range(size):
        row = i >> 3 if wide else images[i] if len(images) else i
        for lane in range(8):
            if wide and lane != i & 7:
                continue
            example = examples[0 if wide else lane]
            if example >= 0:
                re, im = state[row * ROW + lane], state[row * ROW + 8 + lane]
                if measured == PROBABILITIES:
                    out[example * size + i] = re * re + im * im
                else:
                    out[2 * (example * size + i)], out[2 * (example * size + i) + 1] = re, im


@inner
def read_in(measured, psi, lam, rows, wide, examples, images, cotangents):
    """The cotangent of the final state from that of probabilities or amplitudes."""
    size = rows * 8 if wide else rows
    for i in range(size):
        row = i >> 3 if wide else images[i] if len(images) else i
        for lane in range(8):
            if wide and lane != i & 7:
                continue
            example, place = examples[0 if wide else lane], row * ROW + lane
            if example < 0:
                lam[place] = lam[place + 8] = 0
            elif measured == PROBABILITIES:
                weight = 2 * cotangents[example * size + i]
                lam[place], lam[place + 8] = weight * psi[place], weight * psi[place + 8]
            else:
                j = 2 * (example * size + i)
                lam[place], lam[place + 8] = cotangents[j], cotangents[j + 1]
