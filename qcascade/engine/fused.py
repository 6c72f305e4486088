"""Compiled gates, several in one pass: two on rows, or all three on lanes, so that a state is loaded and stored once for them.

States, gates and coefficients are those of `gates`. Every kernel is there twice: for gates that all are real, and for any.
"""

from __future__ import annotations

from typing import Any

from qcascade.engine import simd
from qcascade.engine.gates import ROW, highest_bit, inner


@inner
def four(values, place):
    """Four vectors one after the other."""
    return (
        simd.load(values, place),
        simd.load(values, place + 8),
        simd.load(values, place + 16),
        simd.load(values, place + 24),
    )


@inner
def row_of(state, place):
    """Real and imaginary parts of a row."""
    return simd.load(state, place), simd.load(state, place + 8)


@inner
def put(state, place, re, im):
    """Write a row."""
    simd.store(state, place, re)
    simd.store(state, place + 8, im)


@inner
def pivots(p, q):
    """(the lower, the higher) of two bits such that every row is one of r, r ^ p, r ^ q, r ^ p ^ q of an r without them."""
    h = highest_bit(p)
    k = highest_bit(q ^ p if q & h else q)
    return min(h, k), max(h, k)


@inner
def without(k, low, high):
    """Number k of those without the bits `low` and `high`."""
    k += k & -low
    return k + (k & -high)


def _kernels(real: bool) -> tuple[Any, Any, Any, Any]:
    """The kernels for real gates, or for any."""

    @inner
    def image(xr, xi, yr, yi, ar, ai, br, bi):
        """A gate's image of the rows x (|0⟩) and y (|1⟩)."""
        if real:
            return (
                simd.fnma(br, yr, simd.mul(ar, xr)),
                simd.fnma(br, yi, simd.mul(ar, xi)),
                simd.fma(ar, yr, simd.mul(br, xr)),
                simd.fma(ar, yi, simd.mul(br, xi)),
            )
        return (
            simd.fnma(bi, yi, simd.fnma(br, yr, simd.fnma(ai, xi, simd.mul(ar, xr)))),
            simd.fma(bi, yr, simd.fnma(br, yi, simd.fma(ai, xr, simd.mul(ar, xi)))),
            simd.fma(ai, yi, simd.fma(ar, yr, simd.fnma(bi, xi, simd.mul(br, xr)))),
            simd.fnma(ai, yr, simd.fma(ar, yi, simd.fma(bi, xr, simd.mul(br, xi)))),
        )

    @inner
    def overlaps(xr, xi, yr, yi, lr, li, mr, mi, vx, vy, vz):
        """Add Im⟨λ|σψ⟩ of a pair of rows, x and y of ψ, l and m of λ, for σ = X, Y, Z; real gates need Y alone."""
        vy = simd.fma(mi, xi, simd.fma(mr, xr, simd.fnma(li, yi, simd.fnma(lr, yr, vy))))
        if not real:
            vx = simd.fnma(mi, xr, simd.fma(mr, xi, simd.fnma(li, yr, simd.fma(lr, yi, vx))))
            vz = simd.fma(mi, yr, simd.fnma(mr, yi, simd.fnma(li, xr, simd.fma(lr, xi, vz))))
        return vx, vy, vz

    @inner
    def store_two(state, i, j, m, n, wr, wi, xr, xi, yr, yi, zr, zi, ar, ai, br, bi, cr, ci, dr, di):
        """Write two gates' image of the rows w (|00⟩), x (|10⟩), y (|01⟩) and z (|11⟩) to places i, j, m and n."""
        wr, wi, xr, xi = image(wr, wi, xr, xi, ar, ai, br, bi)
        yr, yi, zr, zi = image(yr, yi, zr, zi, ar, ai, br, bi)
        wr, wi, yr, yi = image(wr, wi, yr, yi, cr, ci, dr, di)
        xr, xi, zr, zi = image(xr, xi, zr, zi, cr, ci, dr, di)
        put(state, i, wr, wi)
        put(state, j, xr, xi)
        put(state, m, yr, yi)
        put(state, n, zr, zi)

    @inner
    def apply_two(state, start, rows, p, q, s, u, coefficients, place):
        """Apply gates with pair masks p, q and select masks s, u to rows start … start + rows − 1."""
        ar, ai, br, bi = four(coefficients, place)
        cr, ci, dr, di = four(coefficients, place + 32)
        low, high = pivots(p, q)
        for k in range(start >> 2, (start + rows) >> 2):
            r = without(k, low, high)
            r ^= (p * simd.parity(r & s)) ^ (q * simd.parity(r & u))
            i, j, m, n = r * ROW, (r ^ p) * ROW, (r ^ q) * ROW, (r ^ p ^ q) * ROW
            wr, wi = row_of(state, i)
            xr, xi = row_of(state, j)
            yr, yi = row_of(state, m)
            zr, zi = row_of(state, n)
            store_two(state, i, j, m, n, wr, wi, xr, xi, yr, yi, zr, zi, ar, ai, br, bi, cr, ci, dr, di)

    @inner
    def undo_two(psi, lam, start, rows, p, q, s, u, coefficients, place, sums, total):
        """Add both gates' Im⟨λ|σψ⟩ to the six vectors at sums[total]; then apply the adjoint gates to ψ and λ."""
        ar, ai, br, bi = four(coefficients, place)
        cr, ci, dr, di = four(coefficients, place + 32)
        ax, ay, az = simd.load(sums, total), simd.load(sums, total + 8), simd.load(sums, total + 16)
        bx, by, bz = simd.load(sums, total + 24), simd.load(sums, total + 32), simd.load(sums, total + 40)
        low, high = pivots(p, q)
        for k in range(start >> 2, (start + rows) >> 2):
            r = without(k, low, high)
            r ^= (p * simd.parity(r & s)) ^ (q * simd.parity(r & u))
            i, j, m, n = r * ROW, (r ^ p) * ROW, (r ^ q) * ROW, (r ^ p ^ q) * ROW
            wr, wi = row_of(psi, i)
            xr, xi = row_of(psi, j)
            yr, yi = row_of(psi, m)
            zr, zi = row_of(psi, n)
            er, ei = row_of(lam, i)
            fr, fi = row_of(lam, j)
            gr, gi = row_of(lam, m)
            hr, hi = row_of(lam, n)
            ax, ay, az = overlaps(wr, wi, xr, xi, er, ei, fr, fi, ax, ay, az)
            ax, ay, az = overlaps(yr, yi, zr, zi, gr, gi, hr, hi, ax, ay, az)
            bx, by, bz = overlaps(wr, wi, yr, yi, er, ei, gr, gi, bx, by, bz)
            bx, by, bz = overlaps(xr, xi, zr, zi, fr, fi, hr, hi, bx, by, bz)
            store_two(psi, i, j, m, n, wr, wi, xr, xi, yr, yi, zr, zi, ar, ai, br, bi, cr, ci, dr, di)
            store_two(lam, i, j, m, n, er, ei, fr, fi, gr, gi, hr, hi, ar, ai, br, bi, cr, ci, dr, di)
        put(sums, total, ax, ay)
        put(sums, total + 16, az, bx)
        put(sums, total + 32, by, bz)

    @inner
    def lane_image(xr, xi, yr, yi, dr, di, er, ei):
        """A lane qubit's gate's image of a row x, y being x exchanged."""
        if real:
            return simd.fma(er, yr, simd.mul(dr, xr)), simd.fma(er, yi, simd.mul(dr, xi))
        return (
            simd.fnma(ei, yi, simd.fma(er, yr, simd.fnma(di, xi, simd.mul(dr, xr)))),
            simd.fma(ei, yr, simd.fma(er, yi, simd.fma(di, xr, simd.mul(dr, xi)))),
        )

    @inner
    def store_lanes(state, i, xr, xi, ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi):
        """Write the three gates' image of a row to place i."""
        xr, xi = lane_image(xr, xi, simd.shuffle4(xr), simd.shuffle4(xi), ar, ai, br, bi)
        xr, xi = lane_image(xr, xi, simd.shuffle2(xr), simd.shuffle2(xi), cr, ci, dr, di)
        xr, xi = lane_image(xr, xi, simd.shuffle1(xr), simd.shuffle1(xi), er, ei, fr, fi)
        put(state, i, xr, xi)

    @inner
    def apply_lanes(state, start, rows, coefficients, place):
        """Apply gates on lane bits 4, 2, 1 to rows start … start + rows − 1."""
        ar, ai, br, bi = four(coefficients, place)
        cr, ci, dr, di = four(coefficients, place + 32)
        er, ei, fr, fi = four(coefficients, place + 64)
        for i in range(start * ROW, (start + rows) * ROW, ROW):
            xr, xi = row_of(state, i)
            store_lanes(state, i, xr, xi, ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi)

    @inner
    def lane_overlaps(xr, xi, yr, yi, lr, li, vx, vy):
        """Add a row's Im⟨λ|ψ'⟩ and Re⟨λ|ψ'⟩, y being ψ'; real gates need the second alone."""
        if not real:
            vx = simd.fnma(li, yr, simd.fma(lr, yi, vx))
        return vx, simd.fma(li, yi, simd.fma(lr, yr, vy))

    @inner
    def undo_lanes(psi, lam, start, rows, coefficients, place, sums, total):
        """`undo_lane_gate` for the gates on lane bits 4, 2, 1, whose sums of Im⟨λ|ψ⟩ are the same."""
        ar, ai, br, bi = four(coefficients, place)
        cr, ci, dr, di = four(coefficients, place + 32)
        er, ei, fr, fi = four(coefficients, place + 64)
        ax, ay = row_of(sums, total)
        bx, by = row_of(sums, total + 24)
        cx, cy = row_of(sums, total + 48)
        vz = simd.load(sums, total + 16)
        for i in range(start * ROW, (start + rows) * ROW, ROW):
            xr, xi = row_of(psi, i)
            lr, li = row_of(lam, i)
            ax, ay = lane_overlaps(xr, xi, simd.shuffle4(xr), simd.shuffle4(xi), lr, li, ax, ay)
            bx, by = lane_overlaps(xr, xi, simd.shuffle2(xr), simd.shuffle2(xi), lr, li, bx, by)
            cx, cy = lane_overlaps(xr, xi, simd.shuffle1(xr), simd.shuffle1(xi), lr, li, cx, cy)
            if not real:
                vz = simd.fnma(li, xr, simd.fma(lr, xi, vz))
            store_lanes(psi, i, xr, xi, ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi)
            store_lanes(lam, i, lr, li, ar, ai, br, bi, cr, ci, dr, di, er, ei, fr, fi)
        put(sums, total, ax, ay)
        put(sums, total + 24, bx, by)
        put(sums, total + 48, cx, cy)
        for gate in range(3):
            simd.store(sums, total + 24 * gate + 16, vz)

    return apply_two, undo_two, apply_lanes, undo_lanes


apply_two_real, undo_two_real, apply_lanes_real, undo_lanes_real = _kernels(True)
apply_two_any, undo_two_any, apply_lanes_any, undo_lanes_any = _kernels(False)
