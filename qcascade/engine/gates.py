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

from qcascade.engine import simd
from qcascade.engine.schedule import DIAGONAL, GENERAL, REAL

ROW = 2 * simd.LANES  # numbers a row: a cache line of float32

jit: Any = numba.njit(cache=True, nogil=True, error_model="numpy")


@jit
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


@jit
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
                if kind == GENERAL:
                    simd.store(psi, i, simd.fnma(bi, yi, simd.fnma(br, yr, simd.fnma(ai, xi, simd.mul(ar, xr)))))
                    simd.store(psi, i + 8, simd.fma(bi, yr, simd.fnma(br, yi, simd.fma(ai, xr, simd.mul(ar, xi)))))
                    simd.store(psi, j, simd.fma(ai, yi, simd.fma(ar, yr, simd.fnma(bi, xi, simd.mul(br, xr)))))
                    simd.store(psi, j + 8, simd.fnma(ai, yr, simd.fma(ar, yi, simd.fma(bi, xr, simd.mul(br, xi)))))
                    simd.store(lam, i, simd.fnma(bi, mi, simd.fnma(br, mr, simd.fnma(ai, li, simd.mul(ar, lr)))))
                    simd.store(lam, i + 8, simd.fma(bi, mr, simd.fnma(br, mi, simd.fma(ai, lr, simd.mul(ar, li)))))
                    simd.store(lam, j, simd.fma(ai, mi, simd.fma(ar, mr, simd.fnma(bi, li, simd.mul(br, lr)))))
                    simd.store(lam, j + 8, simd.fnma(ai, mr, simd.fma(ar, mi, simd.fma(bi, lr, simd.mul(br, li)))))
                elif kind == REAL:
                    simd.store(psi, i, simd.fnma(br, yr, simd.mul(ar, xr)))
                    simd.store(psi, i + 8, simd.fnma(br, yi, simd.mul(ar, xi)))
                    simd.store(psi, j, simd.fma(ar, yr, simd.mul(br, xr)))
                    simd.store(psi, j + 8, simd.fma(ar, yi, simd.mul(br, xi)))
                    simd.store(lam, i, simd.fnma(br, mr, simd.mul(ar, lr)))
                    simd.store(lam, i + 8, simd.fnma(br, mi, simd.mul(ar, li)))
                    simd.store(lam, j, simd.fma(ar, mr, simd.mul(br, lr)))
                    simd.store(lam, j + 8, simd.fma(ar, mi, simd.mul(br, li)))
                else:
                    simd.store(psi, i, simd.fnma(ai, xi, simd.mul(ar, xr)))
                    simd.store(psi, i + 8, simd.fma(ai, xr, simd.mul(ar, xi)))
                    simd.store(psi, j, simd.fma(ai, yi, simd.mul(ar, yr)))
                    simd.store(psi, j + 8, simd.fnma(ai, yr, simd.mul(ar, yi)))
                    simd.store(lam, i, simd.fnma(ai, li, simd.mul(ar, lr)))
                    simd.store(lam, i + 8, simd.fma(ai, lr, simd.mul(ar, li)))
                    simd.store(lam, j, simd.fma(ai, mi, simd.mul(ar, mr)))
                    simd.store(lam, j + 8, simd.fnma(ai, mr, simd.mul(ar, mi)))
    simd.store(sums, total, vx)
    simd.store(sums, total + 8, vy)
    simd.store(sums, total + 16, vz)


@jit
def exchanged(vector, bit):
    """The vector with lanes l and l ^ bit exchanged; bit is 1, 2 or 4."""
    if bit == 1:
        return simd.shuffle1(vector)
    if bit == 2:
        return simd.shuffle2(vector)
    return simd.shuffle4(vector)


@jit
def apply_lane_gate(state, start, rows, bit, coefficients, place):
    """Apply a gate on a lane qubit to rows start … start + rows − 1."""
    dr, di = simd.load(coefficients, place), simd.load(coefficients, place + 8)
    er, ei = simd.load(coefficients, place + 16), simd.load(coefficients, place + 24)
    for r in range(start, start + rows):
        i = r * ROW
        xr, xi = simd.load(state, i), simd.load(state, i + 8)
        yr, yi = exchanged(xr, bit), exchanged(xi, bit)
        simd.store(state, i, simd.fnma(ei, yi, simd.fma(er, yr, simd.fnma(di, xi, simd.mul(dr, xr)))))
        simd.store(state, i + 8, simd.fma(ei, yr, simd.fma(er, yi, simd.fma(di, xr, simd.mul(dr, xi)))))


@jit
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
            mr, mi = exchanged(lr, bit), exchanged(li, bit)
            simd.store(psi, i, simd.fnma(ei, yi, simd.fma(er, yr, simd.fnma(di, xi, simd.mul(dr, xr)))))
            simd.store(psi, i + 8, simd.fma(ei, yr, simd.fma(er, yi, simd.fma(di, xr, simd.mul(dr, xi)))))
            simd.store(lam, i, simd.fnma(ei, mi, simd.fma(er, mr, simd.fnma(di, li, simd.mul(dr, lr)))))
            simd.store(lam, i + 8, simd.fma(ei, mr, simd.fma(er, mi, simd.fma(di, lr, simd.mul(dr, li)))))
    simd.store(sums, total, vx)
    simd.store(sums, total + 8, vy)
    simd.store(sums, total + 16, vz)


@jit
def lane_signs(sums, total, bit):
    """Turn the raw sums of a lane qubit's gate into Im⟨λ|σψ⟩: Y is −Re where the lane is |0⟩, Z −Im where it is |1⟩."""
    for lane in range(8):
        if lane & bit:
            sums[total + 16 + lane] = -sums[total + 16 + lane]
        else:
            sums[total + 8 + lane] = -sums[total + 8 + lane]


@jit
def apply_phase(state, rows, first, second, factors, place, active):
    """Multiply row r by the vector pair (cos, sin) of case 2·parity(r & first) + parity(r & second), where active."""
    for r in range(rows):
        case = 2 * simd.parity(r & first) + simd.parity(r & second)
        if active >> case & 1:
            c, s = simd.load(factors, place + 16 * case), simd.load(factors, place + 16 * case + 8)
            xr, xi = simd.load(state, r * ROW), simd.load(state, r * ROW + 8)
            simd.store(state, r * ROW, simd.fnma(s, xi, simd.mul(c, xr)))
            simd.store(state, r * ROW + 8, simd.fma(s, xr, simd.mul(c, xi)))


@jit
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


@jit
def permute(source, target, rows, table):
    """Wide states: element p of the target is element table[p] of the source."""
    for r in range(rows):
        for lane in range(8):
            p = table[r * 8 + lane]
            j = (p >> 3) * ROW + (p & 7)
            target[r * ROW + lane] = source[j]
            target[r * ROW + 8 + lane] = source[j + 8]


@jit
def squares(state, rows, out):
    """|amplitude|² of every row."""
    for r in range(rows):
        re, im = simd.load(state, r * ROW), simd.load(state, r * ROW + 8)
        simd.store(out, r * 8, simd.fma(im, im, simd.mul(re, re)))


@jit
def scale(state, rows, weights, out):
    """Set out = 2 · weights · state, row by row: the cotangent of Σ weights |ψ|²."""
    for r in range(rows):
        w = simd.load(weights, r * 8)
        w = simd.add(w, w)
        simd.store(out, r * ROW, simd.mul(w, simd.load(state, r * ROW)))
        simd.store(out, r * ROW + 8, simd.mul(w, simd.load(state, r * ROW + 8)))


@jit
def scale_onto(state, rows, weights, out):
    """`scale`, added to what `out` holds."""
    for r in range(rows):
        w = simd.load(weights, r * 8)
        w = simd.add(w, w)
        simd.store(out, r * ROW, simd.fma(w, simd.load(state, r * ROW), simd.load(out, r * ROW)))
        simd.store(out, r * ROW + 8, simd.fma(w, simd.load(state, r * ROW + 8), simd.load(out, r * ROW + 8)))


@jit
def accumulate(target, source, count):
    """Add source to target over `count` numbers, a multiple of eight."""
    for i in range(0, count, 8):
        simd.store(target, i, simd.add(simd.load(target, i), simd.load(source, i)))


@jit
def walsh_hadamard(values, rows, lane_bits, block):
    """Unnormalised Walsh–Hadamard transform of rows of eight values over the row's bits (and the lanes' bits).

    Blocks of `block` rows are finished while they are in cache.
    """
    width = 1
    for size in (min(block, rows), rows):
        for start in range(0, rows, size):
            half = width
            while half < size:
                for base in range(start, start + size, 2 * half):
                    for r in range(base, base + half):
                        a, b = simd.load(values, r * 8), simd.load(values, (r + half) * 8)
                        simd.store(values, r * 8, simd.add(a, b))
                        simd.store(values, (r + half) * 8, simd.sub(a, b))
                half *= 2
        width = size
    if lane_bits:
        for r in range(rows):
            for bit in (1, 2, 4):
                for lane in range(8):
                    if not lane & bit:
                        a, b = values[r * 8 + lane], values[r * 8 + lane + bit]
                        values[r * 8 + lane], values[r * 8 + lane + bit] = a + b, a - b
