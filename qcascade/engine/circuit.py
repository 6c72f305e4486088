"""Compiled circuits: a schedule run forward and backward on block after block of eight examples, or on wide examples.

Forward: coefficients of every gate, the sweeps of the schedule, the measurement. Backward is the adjoint method (Jones and
Gacon 2020, arXiv 2009.02823): starting from the final state and its cotangent, every gate is undone on both, and its
angle's derivative is one inner product between; memory does not grow with depth.

The integer tables are those of `schedule.Schedule`. Angles arrive as cosines and sines of half angles, [rows, A] flat,
row r of the batch using row r // `per`; amplitudes as (re, im) pairs, row r using row
``(r // batch) · amp_set + (r % batch) · amp_row``. Blocks first … last − 1 are done by one call, so that threads can share a batch.
"""

from __future__ import annotations

import numpy as np

from qcascade.engine import simd
from qcascade.engine.fused import (
    apply_lanes_any,
    apply_lanes_real,
    apply_two_any,
    apply_two_real,
    undo_lanes_any,
    undo_lanes_real,
    undo_two_any,
    undo_two_real,
)
from qcascade.engine.gates import (
    ROW,
    apply_diagonals,
    apply_gate,
    apply_lane_gate,
    apply_phase,
    clear,
    copy,
    highest_bit,
    inner,
    jit,
    lane_signs,
    permute,
    undo_diagonals,
    undo_gate,
    undo_lane_gate,
    undo_phase,
)
from qcascade.engine.observe import (
    accumulate,
    change_basis,
    file_strings,
    has_basis,
    read_in,
    read_strings,
    scale,
    spread,
    squares,
    transform,
    write_out,
)
from qcascade.engine.product import product_state, product_sums
from qcascade.engine.schedule import (
    CHUNK,
    CHUNK_ROWS,
    EXPECTATIONS,
    PERMUTE,
    PHASE,
    PRODUCT,
    REAL,
    ROTATE,
    STATE,
)


@jit
def fill_angles(starts, columns, values, constants, inputs, sets, batch, step, own, data, weights, half):
    """The affine map of half angles: for every set, or every example where angles are its own."""
    angles = len(constants)
    for s in range(sets):
        for b in range(batch if own else 1):
            onto, row = ((s * batch + b) if own else s) * angles, s * step + b
            for a in range(angles):
                total = constants[a]
                for k in range(starts[a], starts[a + 1]):
                    column = columns[k]
                    if column < inputs:
                        total += values[k] * data[row // batch, row % batch, column]
                    else:
                        total += values[k] * weights[s, column - inputs]
                half[onto + a] = total


@jit
def file_symbols(starts, columns, values, constants, inputs, sets, batch, step, gradients, for_data, for_weights):
    """The adjoint of `fill_angles` for whole angles, onto zeros; one order of addition whatever the threads."""
    angles = len(constants)
    for s in range(sets):
        for b in range(batch):
            base, row = (s * batch + b) * angles, s * step + b
            for a in range(angles):
                for k in range(starts[a], starts[a + 1]):
                    column, change = columns[k], 2 * values[k] * gradients[base + a]
                    if column < inputs:
                        for_data[row // batch, row % batch, column] += change
                    else:
                        for_weights[s, column - inputs] += change


@inner
def by_lanes(values, angle_rows, angles, out):
    """The values of a block's angles, eight lanes each."""
    for lane in range(8):
        base = angle_rows[lane] * angles
        for angle in range(angles):
            out[angle * 8 + lane] = values[base + angle]


@inner
def fill_coefficients(first, last, gates, spans, rotations, cos, sin, sign, out):
    """The eight lanes' fused gates first … last − 1; sign −1 makes the adjoints."""
    one, zero = simd.splat(cos.dtype.type(1)), simd.splat(cos.dtype.type(0))
    turn = simd.splat(cos.dtype.type(sign))
    for g in range(first, last):
        ar, ai, br, bi = one, zero, zero, zero
        for k in range(spans[g], spans[g + 1]):
            axis, place = rotations[k, 0], 8 * rotations[k, 1]
            c, s = simd.load(cos, place), simd.load(sin, place)
            cr, ci, dr, di = simd.mul(c, ar), simd.mul(c, ai), simd.mul(c, br), simd.mul(c, bi)
            if axis == 2:
                ar, ai, br, bi = simd.fma(s, ai, cr), simd.fnma(s, ar, ci), simd.fnma(s, bi, dr), simd.fma(s, br, di)
            elif axis == 1:
                ar, ai, br, bi = simd.fnma(s, br, cr), simd.fnma(s, bi, ci), simd.fma(s, ar, dr), simd.fma(s, ai, di)
            else:
                ar, ai, br, bi = simd.fma(s, bi, cr), simd.fnma(s, br, ci), simd.fma(s, ai, dr), simd.fnma(s, ar, di)
        simd.store(out, g * 32, ar)
        simd.store(out, g * 32 + 8, simd.mul(turn, ai))
        simd.store(out, g * 32 + 16, simd.mul(turn, br))
        simd.store(out, g * 32 + 24, simd.mul(turn, bi))
        for lane in range(8 if gates[g, 3] else 0):
            place = g * 32 + (8 if lane & gates[g, 3] else 16) + lane
            out[place] = -out[place]


@inner
def fill_factors(terms, cos, sin, sign, out):
    """Cosine and sine of every phase term by case and lane, 1 and 0 where it does not act."""
    for t in range(len(terms)):
        for lane in range(8):
            c, s = cos[terms[t, 0] * 8 + lane], sin[terms[t, 0] * 8 + lane]
            for case in range(4):
                on = terms[t, 3] >> (8 * case + lane) & 1
                out[t * 64 + case * 16 + lane] = c * c - s * s if on else 1.0
                out[t * 64 + case * 16 + 8 + lane] = sign * 2 * c * s if on else 0.0


@inner
def active_cases(cases):
    """Bit k: some lane acts in case k."""
    return (
        int((cases & 255) != 0)
        | int((cases >> 8 & 255) != 0) << 1
        | int((cases >> 16 & 255) != 0) << 2
        | int((cases >> 24 & 255) != 0) << 3
    )


@inner
def sweep_gates(mode, first, last, gates, state, rows, coefficients):
    """Apply gates first … last − 1 in as few passes as they allow, chunk by chunk where that is the mode."""
    size = min(CHUNK_ROWS, rows) if mode == CHUNK else rows
    for start in range(0, rows, size):
        g = first
        while g < last:
            pair, select, kind, lane, c = gates[g, 0], gates[g, 1], gates[g, 2], gates[g, 3], 32 * g
            count, real = together(g, last, gates)
            if count == 3 and real:
                apply_lanes_real(state, start, size, coefficients, c)
            elif count == 3:
                apply_lanes_any(state, start, size, coefficients, c)
            elif count == 2 and real:
                apply_two_real(state, start, size, pair, gates[g + 1, 0], select, gates[g + 1, 1], coefficients, c)
            elif count == 2:
                apply_two_any(state, start, size, pair, gates[g + 1, 0], select, gates[g + 1, 1], coefficients, c)
            elif lane:
                apply_lane_gate(state, start, size, lane, coefficients, c)
            else:
                h = highest_bit(pair)
                apply_gate(state, start, 2 * h, size // (2 * h), h, pair, select, kind, coefficients, c)
            g += count


@inner
def together(g, last, gates):
    """(how many gates from g on are done in one pass, whether all of them are real)."""
    count = 1
    if g + 1 < last and not gates[g, 3] and not gates[g + 1, 3]:
        count = 2
    elif g + 2 < last and gates[g, 3] == 4 and gates[g + 1, 3] == 2 and gates[g + 2, 3] == 1:
        count = 3
    real = True
    for k in range(g, g + count):
        real &= gates[k, 2] == REAL
    return count, real


@inner
def sweep_adjoints(mode, first, last, gates, psi, lam, rows, coefficients, sums, update):
    """Undo gates first … last − 1 on both states, in the same orders, and add up their derivatives."""
    size = min(CHUNK_ROWS, rows) if mode == CHUNK else rows
    for start in range(0, rows, size):
        g = first
        while g < last:
            pair, select, kind, lane, c, t = gates[g, 0], gates[g, 1], gates[g, 2], gates[g, 3], 32 * g, 24 * g
            count, real = together(g, last, gates)
            if count == 3 and real:
                undo_lanes_real(psi, lam, start, size, coefficients, c, sums, t)
            elif count == 3:
                undo_lanes_any(psi, lam, start, size, coefficients, c, sums, t)
            elif count == 2 and real:
                other, choice = gates[g + 1, 0], gates[g + 1, 1]
                undo_two_real(psi, lam, start, size, pair, other, select, choice, coefficients, c, sums, t)
            elif count == 2:
                other, choice = gates[g + 1, 0], gates[g + 1, 1]
                undo_two_any(psi, lam, start, size, pair, other, select, choice, coefficients, c, sums, t)
            elif lane:
                undo_lane_gate(psi, lam, start, size, lane, coefficients, c, sums, t, update)
            else:
                h, n = highest_bit(pair), size // (2 * highest_bit(pair))
                undo_gate(psi, lam, start, 2 * h, n, h, pair, select, kind, coefficients, c, sums, t, update)
            g += count


@inner
def load_amplitudes(amplitudes, places, wide, state, rows):
    """Rows of amplitudes, (re, im) pairs, into the lanes."""
    size = rows * 8 if wide else rows
    for r in range(rows):
        for lane in range(8):
            i = 2 * (places[lane] * size + (r * 8 + lane if wide else r))
            state[r * ROW + lane], state[r * ROW + 8 + lane] = amplitudes[i], amplitudes[i + 1]


@inner
def start_state(sweeps, gates, amplitudes, places, wide, state, rows):
    """The loaded amplitudes, or |0…0⟩ where no sweep makes the state itself."""
    if len(amplitudes):
        load_amplitudes(amplitudes, places, wide, state, rows)
    elif len(sweeps) == 0 or sweeps[0, 0] != PRODUCT:
        none = np.int64(0)  # a literal would have the callee compiled once more
        product_state(none, none, gates, wide, state, rows, state)


@inner
def run_sweeps(sweeps, epochs, gates, terms, permutations, wide, front, back, rows, coefficients, factors):
    """Every sweep on `front`; permutations go to `back` and change their roles."""
    for k in range(len(sweeps)):
        mode, first, last = sweeps[k, 0], sweeps[k, 1], sweeps[k, 2]
        if mode == PHASE:
            active = active_cases(terms[first, 3])
            apply_phase(front, rows, terms[first, 1], terms[first, 2], factors, 64 * first, active)
        elif mode == PERMUTE:
            permute(front, back, rows, permutations[first, 0])
            front, back = back, front
        elif mode == ROTATE:
            apply_diagonals(first, last, gates, epochs[sweeps[k, 3]], front, rows, coefficients)
        elif mode == PRODUCT:
            product_state(first, last, gates, wide, front, rows, coefficients)
        else:
            sweep_gates(mode, first, last, gates, front, rows, coefficients)


@inner
def lanes_of(block, wide, count, per, batch, amp_set, amp_row, examples, angle_rows, places):
    """Which example, row of angles and row of amplitudes each lane of a block has; lanes without an example get −1."""
    for lane in range(8):
        example = block if wide else block * 8 + lane
        row = min(example, count - 1)
        examples[lane] = example if example < count and not (wide and lane) else -1
        angle_rows[lane] = row // per
        places[lane] = row // batch * amp_set + row % batch * amp_row


@jit
def forward(
    first, last, wide, qubits, count, per, batch, amp_set, amp_row, angles,
    sweeps, epochs, gates, spans, rotations, terms, permutations, swaps, measured, groups, width,
    bases, strings, butterflies, images,
    keep, cos, sin, amplitudes, kept, out,
):  # fmt: skip
    """Run blocks first … last − 1: final states to `kept` where `keep`, what is measured to `out`."""
    none, plus = np.int64(0), np.int64(1)  # literals would have their callees compiled once more
    rows = 1 << (qubits - 3 if wide else qubits)
    examples, angle_rows, places = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    cosines, sines = np.empty(angles * 8, cos.dtype), np.empty(angles * 8, cos.dtype)
    coefficients, factors = np.empty(len(gates) * 32, cos.dtype), np.empty(len(terms) * 64, cos.dtype)
    spare = np.empty(rows * ROW if swaps or len(bases) else 0, cos.dtype)
    own = np.empty(0 if keep else rows * ROW, cos.dtype)
    apart = measured == EXPECTATIONS and (not swaps or len(bases) > 0)  # else weights are where only permutations write
    room, work = np.empty(rows * 8 if apart else 0, cos.dtype), np.empty(32, cos.dtype)
    for block in range(first, last):
        weights = room if apart else spare[: rows * 8]
        lanes_of(block, wide, count, per, batch, amp_set, amp_row, examples, angle_rows, places)
        by_lanes(cos, angle_rows, angles, cosines)
        by_lanes(sin, angle_rows, angles, sines)
        fill_coefficients(none, len(gates), gates, spans, rotations, cosines, sines, plus, coefficients)
        fill_factors(terms, cosines, sines, plus, factors)
        state = kept[block * rows * ROW : (block + 1) * rows * ROW] if keep else own
        front, back = (spare, state) if swaps & 1 else (state, spare)
        start_state(sweeps, gates, amplitudes, places, wide, front, rows)
        run_sweeps(sweeps, epochs, gates, terms, permutations, wide, front, back, rows, coefficients, factors)
        if measured == EXPECTATIONS:
            for group in range(groups):
                rotated = state
                if has_basis(bases, group):
                    rotated = spare
                    copy(spare, state, rows * ROW)
                    change_basis(bases, group, spare, rows, plus, work)
                squares(rotated, rows, weights)
                transform(weights, butterflies, group)
                read_strings(strings, group, weights, wide, examples, width, out)
        else:
            write_out(measured, state, rows, wide, examples, images, out)


@jit
def backward(
    first, last, wide, qubits, count, per, batch, amp_set, amp_row, angles,
    sweeps, epochs, gates, spans, rotations, terms, permutations, swaps, measured, groups, width,
    bases, strings, butterflies, images,
    keep, cos, sin, amplitudes, kept, cotangents, angle_gradients, amplitude_gradients,
):  # fmt: skip
    """Gradients of blocks first … last − 1: for every example's angles [count, A], and its amplitudes where asked for.

    Final states in `kept` are undone where they are, and lost.
    """
    none, plus, minus = np.int64(0), np.int64(1), np.int64(-1)  # literals would have their callees compiled once more
    rows, update = 1 << (qubits - 3 if wide else qubits), np.bool_(True)
    examples, angle_rows, places = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    cosines, sines = np.empty(angles * 8, cos.dtype), np.empty(angles * 8, cos.dtype)
    coefficients, factors = np.empty(len(gates) * 32, cos.dtype), np.empty(len(terms) * 64, cos.dtype)
    sums, phase_sums = np.empty(len(gates) * 24, cos.dtype), np.empty(len(terms) * 32, cos.dtype)
    gradients = np.empty(angles * 8, cos.dtype)
    psi, lam = np.empty(0 if keep else rows * ROW, cos.dtype), np.empty(rows * ROW, cos.dtype)
    spare = np.empty(rows * ROW if swaps or len(bases) else 0, cos.dtype)
    apart = measured == EXPECTATIONS and (not swaps or len(bases) > 0)  # else weights are where only permutations write
    room, work = np.empty(rows * 8 if apart else 0, cos.dtype), np.empty(32, cos.dtype)
    for block in range(first, last):
        weights = room if apart else spare[: rows * 8]
        lanes_of(block, wide, count, per, batch, amp_set, amp_row, examples, angle_rows, places)
        by_lanes(cos, angle_rows, angles, cosines)
        by_lanes(sin, angle_rows, angles, sines)
        if keep:
            psi = kept[block * rows * ROW : (block + 1) * rows * ROW]
        else:
            fill_coefficients(none, len(gates), gates, spans, rotations, cosines, sines, plus, coefficients)
            fill_factors(terms, cosines, sines, plus, factors)
            front, back = (spare, psi) if swaps & 1 else (psi, spare)
            start_state(sweeps, gates, amplitudes, places, wide, front, rows)
            run_sweeps(sweeps, epochs, gates, terms, permutations, wide, front, back, rows, coefficients, factors)
        fill_coefficients(none, len(gates), gates, spans, rotations, cosines, sines, minus, coefficients)
        fill_factors(terms, cosines, sines, minus, factors)
        clear(sums, none, len(sums))
        clear(phase_sums, none, len(phase_sums))
        if measured == EXPECTATIONS:
            for group in range(groups):
                file_strings(strings, group, weights, wide, examples, width, cotangents)
                spread(weights, butterflies, group)
                source, target = psi, spare if group else lam
                if has_basis(bases, group):
                    copy(target, psi, rows * ROW)
                    change_basis(bases, group, target, rows, plus, work)
                    source = target
                scale(source, rows, weights, target)
                if has_basis(bases, group):
                    change_basis(bases, group, target, rows, minus, work)
                if group:
                    accumulate(lam, spare, rows * ROW)
        else:
            read_in(measured, psi, lam, rows, wide, examples, images, cotangents)
        for k in range(len(sweeps) - 1, -1, -1):
            mode, start, stop = sweeps[k, 0], sweeps[k, 1], sweeps[k, 2]
            if mode == PHASE:
                active = active_cases(terms[start, 3])
                undo_phase(
                    psi,
                    lam,
                    rows,
                    terms[start, 1],
                    terms[start, 2],
                    factors,
                    64 * start,
                    active,
                    phase_sums,
                    32 * start,
                )
            elif mode == PERMUTE:
                permute(lam, spare, rows, permutations[start, 1])
                lam, spare = spare, lam
                if k != 1 or sweeps[0, 0] != PRODUCT:  # a product state is not asked for again
                    permute(psi, spare, rows, permutations[start, 1])
                    psi, spare = spare, psi
            elif mode == ROTATE:
                undo_diagonals(start, stop, gates, epochs[sweeps[k, 3]], psi, lam, rows, coefficients, sums)
            elif mode == PRODUCT:
                fill_coefficients(start, stop, gates, spans, rotations, cosines, sines, plus, coefficients)
                product_sums(start, stop, gates, wide, lam, rows, coefficients, sums)
            else:
                sweep_adjoints(mode, start, stop, gates, psi, lam, rows, coefficients, sums, update)
        file_angles(gates, spans, rotations, terms, cosines, sines, sums, phase_sums, wide, gradients)
        for lane in range(8):
            if examples[lane] >= 0:
                for angle in range(angles):
                    angle_gradients[examples[lane] * angles + angle] = gradients[angle * 8 + lane]
        if len(amplitude_gradients):
            write_out(np.int64(STATE), lam, rows, wide, examples, images[:0], amplitude_gradients)


@inner
def file_angles(gates, spans, rotations, terms, cos, sin, sums, phase_sums, wide, out):
    """Derivatives of every angle from the gates' sums, by turning (X, Y, Z) back through each gate's rotations."""
    clear(out, np.int64(0), len(out))
    half = simd.splat(cos.dtype.type(0.5))
    for g in range(len(gates)):
        if gates[g, 3]:
            lane_signs(sums, 24 * g, gates[g, 3])
        if wide:
            for axis in range(3):
                place = 24 * g + 8 * axis
                total = sums[place]
                for lane in range(1, 8):
                    total += sums[place + lane]
                simd.store(sums, place, simd.splat(total))
        x, y, z = simd.load(sums, 24 * g), simd.load(sums, 24 * g + 8), simd.load(sums, 24 * g + 16)
        for k in range(spans[g + 1] - 1, spans[g] - 1, -1):
            axis, place = rotations[k, 0], 8 * rotations[k, 1]
            c, s = simd.load(cos, place), simd.load(sin, place)
            c, s = simd.fnma(s, s, simd.mul(c, c)), simd.mul(simd.add(s, s), c)
            own = simd.load(out, place)
            if axis == 0:
                simd.store(out, place, simd.fma(half, x, own))
                y, z = simd.fma(s, z, simd.mul(c, y)), simd.fnma(s, y, simd.mul(c, z))
            elif axis == 1:
                simd.store(out, place, simd.fma(half, y, own))
                z, x = simd.fma(s, x, simd.mul(c, z)), simd.fnma(s, z, simd.mul(c, x))
            else:
                simd.store(out, place, simd.fma(half, z, own))
                x, y = simd.fma(s, y, simd.mul(c, x)), simd.fnma(s, x, simd.mul(c, y))
    for t in range(len(terms)):
        for lane in range(8):
            for case in range(4):
                if terms[t, 3] >> (8 * case + lane) & 1:
                    out[terms[t, 0] * 8 + (0 if wide else lane)] += phase_sums[32 * t + 8 * case + lane]
