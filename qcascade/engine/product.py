"""Compiled product states: the first layer of gates on |0…0⟩, and its derivatives, without applying a gate to a whole state.

The state is the outer product of two tables, of the low row qubits (with the lane qubits) and of the high ones. A gate on a
low qubit has Im⟨λ|σψ⟩ = Im⟨μ|σφ⟩ with φ the low table and μ = ⟨high table|λ⟩, and the other way round: one pass over λ
leaves two small states, and ψ is not needed.
"""

from __future__ import annotations

import numpy as np

from qcascade.engine import simd
from qcascade.engine.gates import ROW, TABLE_BITS, clear, diagonal_of, inner, undo_gate, undo_lane_gate


@inner
def product_table(first, last, gates, lanes, lowest, bits, coefficients):
    """The state of the row qubits lowest … lowest + bits − 1; in wide states the low ones' with that of the lane qubits."""
    table = np.empty(ROW << bits, coefficients.dtype)
    for lane in range(8):
        re, im, reached = 1.0, 0.0, 0
        for g in range(first, last):
            bit = gates[g, 3]
            if bit and lanes:  # a lane that is |0⟩ gets a, which is its d; a lane that is |1⟩ gets b, which is its o
                reached |= bit
                place = 32 * g + (16 if lane & bit else 0) + lane
                c, s = coefficients[place], coefficients[place + 8]
                re, im = re * c - im * s, re * s + im * c
        alone = lanes and lane & ~reached  # the lane qubit stays |0⟩
        table[lane], table[8 + lane] = (0.0, 0.0) if alone else (re, im)
    for t in range(bits):
        filled = ROW << t
        place = diagonal_of(first, last, gates, 1 << (lowest + t))
        if place < 0:
            clear(table, filled, 2 * filled)
        else:
            ar, ai = simd.load(coefficients, place), simd.load(coefficients, place + 8)
            br, bi = simd.load(coefficients, place + 16), simd.load(coefficients, place + 24)
            for i in range(0, filled, ROW):
                j = i + filled
                xr, xi = simd.load(table, i), simd.load(table, i + 8)
                simd.store(table, i, simd.fnma(ai, xi, simd.mul(ar, xr)))
                simd.store(table, i + 8, simd.fma(ai, xr, simd.mul(ar, xi)))
                simd.store(table, j, simd.fnma(bi, xi, simd.mul(br, xr)))
                simd.store(table, j + 8, simd.fma(bi, xr, simd.mul(br, xi)))
    return table


@inner
def halves(rows):
    """How many row qubits are low, how many high."""
    bits = 0
    while 1 << bits < rows:
        bits += 1
    return min(bits, TABLE_BITS), bits - min(bits, TABLE_BITS)


@inner
def tables(first, last, gates, wide, few, many, coefficients):
    """The tables of the low and of the high row qubits."""
    none, apart = np.int64(0), np.bool_(False)  # literals would have the callee compiled once more
    low = product_table(first, last, gates, wide, none, few, coefficients)
    return low, product_table(first, last, gates, apart, few, many, coefficients)


@inner
def product_state(first, last, gates, wide, state, rows, coefficients):
    """Write the state that the gates make of |0…0⟩."""
    few, many = halves(rows)
    low, high = tables(first, last, gates, wide, few, many, coefficients)
    for h in range(0, ROW << many, ROW):
        re, im = simd.load(high, h), simd.load(high, h + 8)
        for b in range(0, ROW << few, ROW):
            i = (h << few) + b
            xr, xi = simd.load(low, b), simd.load(low, b + 8)
            simd.store(state, i, simd.fnma(im, xi, simd.mul(re, xr)))
            simd.store(state, i + 8, simd.fma(im, xr, simd.mul(re, xi)))


@inner
def product_sums(first, last, gates, wide, lam, rows, coefficients, sums):
    """Add every gate's Im⟨λ|σψ⟩, ψ being the state that `product_state` makes; λ stays as it is."""
    few, many = halves(rows)
    low, high = tables(first, last, gates, wide, few, many, coefficients)
    low_lam, high_lam = np.zeros(ROW << few, lam.dtype), np.empty(ROW << many, lam.dtype)
    for h in range(0, ROW << many, ROW):
        re, im = simd.load(high, h), simd.load(high, h + 8)
        sr = si = simd.splat(lam.dtype.type(0))
        for b in range(0, ROW << few, ROW):
            i = (h << few) + b
            lr, li, pr, pi = simd.load(lam, i), simd.load(lam, i + 8), simd.load(low, b), simd.load(low, b + 8)
            sr = simd.fma(li, pi, simd.fma(lr, pr, sr))
            si = simd.fnma(lr, pi, simd.fma(li, pr, si))
            simd.store(low_lam, b, simd.fma(li, im, simd.fma(lr, re, simd.load(low_lam, b))))
            simd.store(low_lam, b + 8, simd.fnma(lr, im, simd.fma(li, re, simd.load(low_lam, b + 8))))
        simd.store(high_lam, h, sr)
        simd.store(high_lam, h + 8, si)
    zero, update = np.int64(0), np.bool_(False)  # literals would have the callees compiled once more
    for g in range(first, last):
        pair, kind, lane, c, t = gates[g, 0], gates[g, 2], gates[g, 3], 32 * g, 24 * g
        if lane:
            undo_lane_gate(low, low_lam, zero, 1 << few, lane, coefficients, c, sums, t, update)
        elif pair >> few:
            h = pair >> few
            n = (1 << many) // (2 * h)
            undo_gate(high, high_lam, zero, 2 * h, n, h, h, h, kind, coefficients, c, sums, t, update)
        else:
            n = (1 << few) // (2 * pair)
            undo_gate(low, low_lam, zero, 2 * pair, n, pair, pair, pair, kind, coefficients, c, sums, t, update)
