"""Compiled gates on a state of rows of eight lanes; the inner loops of the simulator.

A state is a flat array of rows, each eight real parts, then eight imaginary parts. What the lanes are is the caller's: eight
examples ("narrow"), or the three lowest qubits of one example ("wide"). A row's number is a basis state of the other
qubits, seen through a linear map: the qubit a gate acts on pairs row r with row r ^ `pair`, and r is its |1⟩ where
r & `select` has odd parity. So CNOTs cost nothing: they only change pairs and selects.

A gate is [[a, −b*], [b, a*]], its vectors (Re a, Im a, Re b, Im b) in `coefficients`; on a lane qubit it is
y[l] = d[l] x[l] + o[l] x[l ^ bit], its vectors (Re d, Im d, Re o, Im o). The adjoint negates the last three vectors.

Cotangents λ follow torch: dL = Re⟨λ|dψ⟩. For a gate with generator −iσ/2, dL/dangle = Im⟨λ|σψ⟩/2, both taken after it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from qcascade.engine import simd
from qcascade.engine.schedule import DIAGONAL, GENERAL, REAL

ROW = 2 * simd.LANES  # numbers a row: a cache line of float32
TABLE_BITS = 6  # row qubits whose joint factors are tabled

jit: Any = numba.njit(cache=True, nogil=True, error_model="numpy")  # what Python calls
# What compiled code alone calls is part of its callers, and of their code on the disk: no way in from Python, no code of its own.
inner: Any = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@inner
def highest_bit(mask):
    """The highest set bit of a positive integer."""
    bit = 1
    while bit << 1 <= mask:
        bit <<= 1
    return bit


@inner
def clear(values, first, last):
    """Zeros from `first` to `last`, a multiple of eight on.

    Numba's own ``values[first:last] = 0``, and copies of that kind, compile for a second each: with them comes the text of the
    error for sizes that do not fit.
    """
    none = simd.splat(values.dtype.type(0))
    for i in range(first, last, 8):
        simd.store(values, i, none)


@inner
def copy(target, source, count):
    """Write the first `count` numbers of source, a multiple of eight, to target."""
    for i in range(0, count, 8):
        simd.store(target, i, simd.load(source, i))


@inner
def store_pair(state, i, j, kind, xr, xi, yr, yi, ar, ai, br, bi):
    """Write a gate's image of the rows x (|0⟩) and y (|1⟩) to places i and j."""
    if kind == GENERAL:
        simd.store(state, i, simd.fnma(bi, yi, simd.fnma(br, yr, simd.fnma(ai, xi, simd.mul(ar, xr)))))
        simd.store(state, i + 8, simd.fma(bi, yr, simd.fnma(br, yi, simd.fma(ai, xr, simd.mul(ar, xi)))))
        simd.store(state, j, simd.fma(ai, yi, simd.fma(ar, yr, simd.fnma(bi, xi, simd.mul(br, xr)))))
        simd.store(state, j + 8, simd.fnma(ai, yr, simd.fma(ar, yi, simd.fma(bi, xr, simd.mul(br, xi)))))
    elif kind == REAL:
        simd.store(state, i, simd.fnma(br, yr, simd.mul(ar, xr)))
        simd.store(state, i + 8, simd.fnma(br, yi, simd.mul(ar, xi)))
        simd.store(state, j, simd.fma(ar, yr, simd.mul(br, xr)))
        simd.store(state, j + 8, simd.fma(ar, yi, simd.mul(br, xi)))
    else:
        simd.store(state, i, simd.fnma(ai, xi, simd.mul(ar, xr)))
        simd.store(state, i + 8, simd.fma(ai, xr, simd.mul(ar, xi)))
        simd.store(state, j, simd.fma(ai, yi, simd.mul(ar, yr)))
        simd.store(state, j + 8, simd.fnma(ai, yr, simd.mul(ar, yi)))


@inner
def apply_gate(state, start, step, repeats, run, pair, select, kind, coefficients, place):
    """Apply a gate to the pairs of rows r, r ^ pair for r in start + k·step + [0, run), k < repeats."""
    ar, ai = simd.load(coefficients, place), simd.load(coefficients, place + 8)
    br, bi = simd.load(coefficients, place + 16), simd.load(coefficients, place + 24)
    for repeat in range(repeats):
        base = start + repeat * step
        for r in range(base, base + run):
            i = (r ^ (pair * simd.parity(r & select))) * ROW
            j = ((i // ROW) ^ pair) * ROW
            xr, xi = simd.load(state, i), simd.load(state, i + 8)
            yr, yi = simd.load(state, j), simd.load(state, j + 8)
            store_pair(state, i, j, kind, xr, xi, yr, yi, ar, ai, br, bi)


@inner
def undo_gate(psi, lam, start, step, repeats, run, pair, select, kind, coefficients, place, sums, total, update):
    """Add Im⟨λ|σψ⟩ for σ = X, Y, Z to the three vectors at sums[total]; then, on `update`, apply the gate to ψ and λ.

    `coefficients` hold the adjoint gate. A real gate only adds to Y, a diagonal one only to Z.
    """
    ar, ai = simd.load(coefficients, place), simd.load(coefficients, place + 8)
    br, bi = simd.load(coefficients, place + 16), simd.load(coefficients, place + 24)
    vx, vy, vz = simd.load(sums, total), simd.load(sums, total + 8), simd.load(sums, total + 16)
    for repeat in range(repeats):
        base = start + repeat * step
        for r in range(base, base + run):
            i = (r ^ (pair * simd.parity(r & select))) * ROW
            j = ((i // ROW) ^ pair) * ROW
            xr, xi = simd.load(psi, i), simd.load(psi, i + 8)
            yr, yi = simd.load(psi, j), simd.load(psi, j + 8)
            lr, li = simd.load(lam, i), simd.load(lam, i + 8)
            mr, mi = simd.load(lam, j), simd.load(lam, j + 8)
            if kind != DIAGONAL:
                vy = simd.fma(mi, xi, simd.fma(mr, xr, simd.fnma(li, yi, simd.fnma(lr, yr, vy))))
            if kind == GENERAL:
                vx = simd.fnma(mi, xr, simd.fma(mr, xi, simd.fnma(li, yr, simd.fma(lr, yi, vx))))
            if kind != REAL:
                vz = simd.fma(mi, yr, simd.fnma(mr, yi, simd.fnma(li, xr, simd.fma(lr, xi, vz))))
            if update:
                store_pair(psi, i, j, kind, xr, xi, yr, yi, ar, ai, br, bi)
                store_pair(lam, i, j, kind, lr, li, mr, mi, ar, ai, br, bi)
    simd.store(sums, total, vx)
    simd.store(sums, total + 8, vy)
    simd.store(sums, total + 16, vz)


@inner
def store_lane(state, i, bit, xr, xi, dr, di, er, ei):
    """Write a lane qubit's gate's image of a row to place i."""
    yr, yi = exchanged(xr, bit), exchanged(xi, bit)
    simd.store(state, i, simd.fnma(ei, yi, simd.fma(er, yr, simd.fnma(di, xi, simd.mul(dr, xr)))))
    simd.store(state, i + 8, simd.fma(ei, yr, simd.fma(er, yi, simd.fma(di, xr, simd.mul(dr, xi)))))


@inner
def exchanged(vector, bit):
    """The vector with lanes l and l ^ bit exchanged; bit is 1, 2 or 4."""
    if bit == 1:
        return simd.shuffle1(vector)
    if bit == 2:
        return simd.shuffle2(vector)
    return simd.shuffle4(vector)


@inner
def apply_lane_gate(state, start, rows, bit, coefficients, place):
    """Apply a gate on a lane qubit to rows start … start + rows − 1."""
    dr, di = simd.load(coefficients, place), simd.load(coefficients, place + 8)
    er, ei = simd.load(coefficients, place + 16), simd.load(coefficients, place + 24)
    for r in range(start, start + rows):
        i = r * ROW
        store_lane(state, i, bit, simd.load(state, i), simd.load(state, i + 8), dr, di, er, ei)


@inner
def undo_lane_gate(psi, lam, start, rows, bit, coefficients, place, sums, total, update):
    """`undo_gate` for a lane qubit; sums of Im⟨λ|ψ'⟩, Re⟨λ|ψ'⟩, Im⟨λ|ψ⟩ by lane, ψ' exchanged, await `lane_signs`."""
    dr, di = simd.load(coefficients, place), simd.load(coefficients, place + 8)
    er, ei = simd.load(coefficients, place + 16), simd.load(coefficients, place + 24)
    vx, vy, vz = simd.load(sums, total), simd.load(sums, total + 8), simd.load(sums, total + 16)
    for r in range(start, start + rows):
        i = r * ROW
        xr, xi, lr, li = simd.load(psi, i), simd.load(psi, i + 8), simd.load(lam, i), simd.load(lam, i + 8)
        yr, yi = exchanged(xr, bit), exchanged(xi, bit)
        vx = simd.fnma(li, yr, simd.fma(lr, yi, vx))
        vy = simd.fma(li, yi, simd.fma(lr, yr, vy))
        vz = simd.fnma(li, xr, simd.fma(lr, xi, vz))
        if update:
            store_lane(psi, i, bit, xr, xi, dr, di, er, ei)
            store_lane(lam, i, bit, lr, li, dr, di, er, ei)
    simd.store(sums, total, vx)
    simd.store(sums, total + 8, vy)
    simd.store(sums, total + 16, vz)


@inner
def lane_signs(sums, total, bit):
    """Turn the raw sums of a lane qubit's gate into Im⟨λ|σψ⟩: Y is −Re where the lane is |0⟩, Z −Im where it is |1⟩."""
    for lane in range(8):
        if lane & bit:
            sums[total + 16 + lane] = -sums[total + 16 + lane]
        else:
            sums[total + 8 + lane] = -sums[total + 8 + lane]


@inner
def apply_phase(state, rows, first, second, factors, place, active):
    """Multiply row r by the vector pair (cos, sin) of case 2·parity(r & first) + parity(r & second), where active."""
    for r in range(rows):
        case = 2 * simd.parity(r & first) + simd.parity(r & second)
        if active >> case & 1:
            c, s = simd.load(factors, place + 16 * case), simd.load(factors, place + 16 * case + 8)
            xr, xi = simd.load(state, r * ROW), simd.load(state, r * ROW + 8)
            simd.store(state, r * ROW, simd.fnma(s, xi, simd.mul(c, xr)))
            simd.store(state, r * ROW + 8, simd.fma(s, xr, simd.mul(c, xi)))


@inner
def undo_phase(psi, lam, rows, first, second, factors, place, active, sums, total):
    """Add −Im⟨λ|ψ⟩ to the vector of the row's case at sums[total + 8 · case]; then apply the adjoint's factors to both."""
    for r in range(rows):
        case = 2 * simd.parity(r & first) + simd.parity(r & second)
        if active >> case & 1:
            c, s = simd.load(factors, place + 16 * case), simd.load(factors, place + 16 * case + 8)
            i, t = r * ROW, total + 8 * case
            xr, xi, lr, li = simd.load(psi, i), simd.load(psi, i + 8), simd.load(lam, i), simd.load(lam, i + 8)
            simd.store(sums, t, simd.fma(li, xr, simd.fnma(lr, xi, simd.load(sums, t))))
            simd.store(psi, i, simd.fnma(s, xi, simd.mul(c, xr)))
            simd.store(psi, i + 8, simd.fma(s, xr, simd.mul(c, xi)))
            simd.store(lam, i, simd.fnma(s, li, simd.mul(c, lr)))
            simd.store(lam, i + 8, simd.fma(s, lr, simd.mul(c, li)))


@inner
def diagonal_table(first, last, gates, epoch, bits, coefficients, rows, factors):
    """Row numbers and factors of the 2^bits combinations of the low row qubits, the lanes' factors included."""
    rows[0] = 0
    one, none = simd.splat(coefficients.dtype.type(1)), simd.splat(coefficients.dtype.type(0))
    re, im = one, none
    for g in range(first, last):
        if gates[g, 3]:
            dr, di = simd.load(coefficients, 32 * g), simd.load(coefficients, 32 * g + 8)
            re, im = simd.fnma(im, di, simd.mul(re, dr)), simd.fma(im, dr, simd.mul(re, di))
    simd.store(factors, 0, re)
    simd.store(factors, 8, im)
    for t in range(bits):
        place = diagonal_of(first, last, gates, epoch[t])
        for b in range(1 << t):
            i, j = b * ROW, (b + (1 << t)) * ROW
            rows[b + (1 << t)] = rows[b] ^ epoch[t]
            re, im = simd.load(factors, i), simd.load(factors, i + 8)
            if place < 0:
                simd.store(factors, j, re)
                simd.store(factors, j + 8, im)
            else:
                ar, ai = simd.load(coefficients, place), simd.load(coefficients, place + 8)
                simd.store(factors, i, simd.fnma(im, ai, simd.mul(re, ar)))
                simd.store(factors, i + 8, simd.fma(im, ar, simd.mul(re, ai)))
                simd.store(factors, j, simd.fma(im, ai, simd.mul(re, ar)))
                simd.store(factors, j + 8, simd.fnma(re, ai, simd.mul(im, ar)))


@inner
def diagonal_of(first, last, gates, pair):
    """Where the coefficients are of the gate on the row qubit with this pair mask, or −1."""
    place = -1
    for g in range(first, last):
        if not gates[g, 3] and gates[g, 0] == pair:
            place = 32 * g
    return place


@inner
def apply_diagonals(first, last, gates, epoch, state, count, coefficients):
    """Z rotations of many qubits at once: one factor a row, the product of one for its low and one for its high bits."""
    total = len(epoch)
    bits = min(total, TABLE_BITS)
    rows, factors = np.empty(1 << bits, np.int64), np.empty(ROW << bits, state.dtype)
    diagonal_table(first, last, gates, epoch, bits, coefficients, rows, factors)
    for high in range(count >> bits):
        base, re, im = high_factor(first, last, gates, epoch, bits, high, coefficients)
        for b in range(1 << bits):
            i = (base ^ rows[b]) * ROW
            lr, li = simd.load(factors, b * ROW), simd.load(factors, b * ROW + 8)
            fr, fi = simd.fnma(im, li, simd.mul(re, lr)), simd.fma(im, lr, simd.mul(re, li))
            xr, xi = simd.load(state, i), simd.load(state, i + 8)
            simd.store(state, i, simd.fnma(fi, xi, simd.mul(fr, xr)))
            simd.store(state, i + 8, simd.fma(fi, xr, simd.mul(fr, xi)))


@inner
def high_factor(first, last, gates, epoch, bits, high, coefficients):
    """(row number, Re, Im of the factor) of a combination of the high row qubits."""
    base = 0
    re, im = simd.splat(coefficients.dtype.type(1)), simd.splat(coefficients.dtype.type(0))
    for t in range(bits, len(epoch)):
        on = high >> (t - bits) & 1
        if on:
            base ^= epoch[t]
        place = diagonal_of(first, last, gates, epoch[t])
        if place >= 0:
            ar, ai = simd.load(coefficients, place), simd.load(coefficients, place + 8)
            if on:
                re, im = simd.fma(im, ai, simd.mul(re, ar)), simd.fnma(re, ai, simd.mul(im, ar))
            else:
                re, im = simd.fnma(im, ai, simd.mul(re, ar)), simd.fma(im, ar, simd.mul(re, ai))
    return base, re, im


@inner
def undo_diagonals(first, last, gates, epoch, psi, lam, count, coefficients, sums):
    """Undo `apply_diagonals` on both states; every gate's Im⟨λ|Zψ⟩ from sums over the low and over the high bits."""
    total = len(epoch)
    bits = min(total, TABLE_BITS)
    rows, factors = np.empty(1 << bits, np.int64), np.empty(ROW << bits, psi.dtype)
    low = np.zeros(8 << bits, psi.dtype)
    diagonal_table(first, last, gates, epoch, bits, coefficients, rows, factors)
    for high in range(count >> bits):
        base, re, im = high_factor(first, last, gates, epoch, bits, high, coefficients)
        here = simd.splat(psi.dtype.type(0))
        for b in range(1 << bits):
            i = (base ^ rows[b]) * ROW
            tr, ti = simd.load(factors, b * ROW), simd.load(factors, b * ROW + 8)
            fr, fi = simd.fnma(im, ti, simd.mul(re, tr)), simd.fma(im, tr, simd.mul(re, ti))
            xr, xi, lr, li = simd.load(psi, i), simd.load(psi, i + 8), simd.load(lam, i), simd.load(lam, i + 8)
            overlap = simd.fnma(li, xr, simd.mul(lr, xi))
            here = simd.add(here, overlap)
            simd.store(low, b * 8, simd.add(simd.load(low, b * 8), overlap))
            simd.store(psi, i, simd.fnma(fi, xi, simd.mul(fr, xr)))
            simd.store(psi, i + 8, simd.fma(fi, xr, simd.mul(fr, xi)))
            simd.store(lam, i, simd.fnma(fi, li, simd.mul(fr, lr)))
            simd.store(lam, i + 8, simd.fma(fi, lr, simd.mul(fr, li)))
        for t in range(bits, total):
            add_signed(first, last, gates, epoch[t], high >> (t - bits) & 1, here, sums)
    for b in range(1 << bits):
        here = simd.load(low, b * 8)
        for t in range(bits):
            add_signed(first, last, gates, epoch[t], b >> t & 1, here, sums)
        for g in range(first, last):
            if gates[g, 3]:
                simd.store(sums, 24 * g + 16, simd.add(simd.load(sums, 24 * g + 16), here))


@inner
def add_signed(first, last, gates, pair, on, value, sums):
    """Add a value, or take it away where the qubit is |1⟩, to the Z sum of the gate on a row qubit."""
    place = diagonal_of(first, last, gates, pair)
    if place >= 0:
        total = place // 32 * 24 + 16
        if on:
            simd.store(sums, total, simd.sub(simd.load(sums, total), value))
        else:
            simd.store(sums, total, simd.add(simd.load(sums, total), value))


@inner
def permute(source, target, rows, places):
    """Wide states: element p of the target is the source's at the exclusive or of places[t] over the set bits t of p."""
    lanes, low = np.zeros(8, np.int64), np.zeros(1 << TABLE_BITS, np.int64)
    none, three = np.int64(0), np.int64(3)  # literals would have the callee compiled once more
    for lane in range(8):
        lanes[lane] = joined(places, lane, none)
    bits = min(len(places) - 3, TABLE_BITS)
    for b in range(1 << bits):
        low[b] = joined(places, b, three)
    for high in range(rows >> bits):
        base, start = joined(places, high, 3 + bits), high << bits
        for b in range(1 << bits):
            i, place = (start | b) * ROW, base ^ low[b]
            simd.store(target, i, simd.gather(source, lanes, place))
            simd.store(target, i + 8, simd.gather(source, lanes, place ^ 8))


@inner
def joined(places, number, first):
    """The exclusive or of places[first + t] over the set bits t of a number."""
    total = 0
    for t in range(first, len(places)):
        if number >> (t - first) & 1:
            total ^= places[t]
    return total
