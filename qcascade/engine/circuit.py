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
from qcascade.engine.gates import (
    ROW,
    accumulate,
    apply_diagonals,
    apply_gate,
    apply_lane_gate,
    apply_phase,
    jit,
    lane_signs,
    permute,
    scale,
    scale_onto,
    squares,
    undo_diagonals,
    undo_gate,
    undo_lane_gate,
    undo_phase,
    walsh_hadamard,
)
from qcascade.engine.schedule import (
    CHUNK,
    CHUNK_ROWS,
    EXPECTATIONS,
    GENERAL,
    PERMUTE,
    PHASE,
    PROBABILITIES,
    PRODUCT,
    ROTATE,
    STATE,
    STRIDED,
)

RUN = 16  # neighbouring rows taken together in strided sweeps
_HALF = 0.7071067811865476


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


@jit
def fill_coefficients(gates, spans, rotations, cos, sin, angle_rows, angles, sign, out):
    """The eight lanes' fused gates; sign −1 makes the adjoints."""
    for g in range(len(gates)):
        bit = gates[g, 3]
        for lane in range(8):
            base = angle_rows[lane] * angles
            ar, ai, br, bi = 1.0, 0.0, 0.0, 0.0
            for k in range(spans[g], spans[g + 1]):
                axis, c, s = rotations[k, 0], cos[base + rotations[k, 1]], sin[base + rotations[k, 1]]
                if axis == 2:
                    ar, ai = c * ar + s * ai, c * ai - s * ar
                    br, bi = c * br - s * bi, c * bi + s * br
                elif axis == 1:
                    ar, ai, br, bi = c * ar - s * br, c * ai - s * bi, s * ar + c * br, s * ai + c * bi
                else:
                    ar, ai, br, bi = c * ar + s * bi, c * ai - s * br, s * ai + c * br, c * bi - s * ar
            if bit and not lane & bit:
                br, bi = -br, bi
            elif bit:
                ai = -ai
            out[g * 32 + lane], out[g * 32 + 8 + lane] = ar, sign * ai
            out[g * 32 + 16 + lane], out[g * 32 + 24 + lane] = sign * br, sign * bi


@jit
def fill_factors(terms, cos, sin, angle_rows, angles, sign, out):
    """Cosine and sine of every phase term by case and lane, 1 and 0 where it does not act."""
    for t in range(len(terms)):
        for lane in range(8):
            place = angle_rows[lane] * angles + terms[t, 0]
            c, s = cos[place], sin[place]
            for case in range(4):
                on = terms[t, 3] >> (8 * case + lane) & 1
                out[t * 64 + case * 16 + lane] = c * c - s * s if on else 1.0
                out[t * 64 + case * 16 + 8 + lane] = sign * 2 * c * s if on else 0.0


@jit
def active_cases(cases):
    """Bit k: some lane acts in case k."""
    return (
        int((cases & 255) != 0)
        | int((cases >> 8 & 255) != 0) << 1
        | int((cases >> 16 & 255) != 0) << 2
        | int((cases >> 24 & 255) != 0) << 3
    )


@jit
def highest_bit(mask):
    """The highest set bit of a positive integer."""
    bit = 1
    while bit << 1 <= mask:
        bit <<= 1
    return bit


@jit
def pairs_of(gates, first, last):
    """All pair bits of some gates together."""
    mask = 0
    for g in range(first, last):
        mask |= gates[g, 0]
    return mask


@jit
def sweep_gates(mode, first, last, gates, state, rows, coefficients):
    """Apply gates first … last − 1: one after the other, chunk by chunk, or on strided blocks of 2^k runs of rows."""
    if mode == STRIDED:
        one, run = np.int64(1), np.int64(RUN)  # literals would have the gates compiled once more
        mask = pairs_of(gates, first, last)
        for base in range(0, rows, RUN):
            if not base & mask:
                for g in range(first, last):
                    pair, select, kind = gates[g, 0], gates[g, 1], gates[g, 2]
                    others, subset = mask & ~pair, 0
                    for _ in range(1 << (last - first - 1)):
                        apply_gate(state, base | subset, rows, one, run, pair, select, kind, coefficients, 32 * g)
                        subset = (subset - others) & others
        return
    size = min(CHUNK_ROWS, rows) if mode == CHUNK else rows
    for start in range(0, rows, size):
        for g in range(first, last):
            pair, select, kind, lane = gates[g, 0], gates[g, 1], gates[g, 2], gates[g, 3]
            if lane:
                apply_lane_gate(state, start, size, lane, coefficients, 32 * g)
            else:
                h = highest_bit(pair)
                apply_gate(state, start, 2 * h, size // (2 * h), h, pair, select, kind, coefficients, 32 * g)


@jit
def sweep_adjoints(mode, first, last, gates, psi, lam, rows, coefficients, sums, update):
    """Undo gates first … last − 1 on both states, in the same orders, and add up their derivatives."""
    if mode == STRIDED:
        one, run = np.int64(1), np.int64(RUN)  # literals would have the gates compiled once more
        mask = pairs_of(gates, first, last)
        for base in range(0, rows, RUN):
            if not base & mask:
                for g in range(first, last):
                    pair, select, kind = gates[g, 0], gates[g, 1], gates[g, 2]
                    others, subset, c, t = mask & ~pair, 0, 32 * g, 24 * g
                    for _ in range(1 << (last - first - 1)):
                        undo_gate(
                            psi,
                            lam,
                            base | subset,
                            rows,
                            one,
                            run,
                            pair,
                            select,
                            kind,
                            coefficients,
                            c,
                            sums,
                            t,
                            update,
                        )
                        subset = (subset - others) & others
        return
    size = min(CHUNK_ROWS, rows) if mode == CHUNK else rows
    for start in range(0, rows, size):
        for g in range(first, last):
            pair, select, kind, lane, c, t = gates[g, 0], gates[g, 1], gates[g, 2], gates[g, 3], 32 * g, 24 * g
            if lane:
                undo_lane_gate(psi, lam, start, size, lane, coefficients, c, sums, t, update)
            else:
                h, n = highest_bit(pair), size // (2 * highest_bit(pair))
                undo_gate(psi, lam, start, 2 * h, n, h, pair, select, kind, coefficients, c, sums, t, update)


@jit
def product_state(first, last, gates, wide, state, rows, coefficients):
    """The first layer of gates on |0…0⟩, without applying any gate to a whole state."""
    state[:ROW] = 0
    for lane in range(8):
        re, im, reached = 1.0, 0.0, 0
        for g in range(first, last):
            bit = gates[g, 3]
            if bit:  # a lane that is |0⟩ gets a, which is its d; a lane that is |1⟩ gets b, which is its o
                reached |= bit
                place = 32 * g + (16 if lane & bit else 0) + lane
                c, s = coefficients[place], coefficients[place + 8]
                re, im = re * c - im * s, re * s + im * c
        if not (wide and lane & ~reached):
            state[lane], state[8 + lane] = re, im
    filled = 1
    while filled < rows:
        place = -1
        for g in range(first, last):
            if not gates[g, 3] and gates[g, 0] == filled:
                place = 32 * g
        if place < 0:
            state[filled * ROW : 2 * filled * ROW] = 0
        else:
            ar, ai = simd.load(coefficients, place), simd.load(coefficients, place + 8)
            br, bi = simd.load(coefficients, place + 16), simd.load(coefficients, place + 24)
            for i in range(0, filled * ROW, ROW):
                j = i + filled * ROW
                xr, xi = simd.load(state, i), simd.load(state, i + 8)
                simd.store(state, i, simd.fnma(ai, xi, simd.mul(ar, xr)))
                simd.store(state, i + 8, simd.fma(ai, xr, simd.mul(ar, xi)))
                simd.store(state, j, simd.fnma(bi, xi, simd.mul(br, xr)))
                simd.store(state, j + 8, simd.fma(bi, xr, simd.mul(br, xi)))
        filled *= 2


@jit
def load_amplitudes(amplitudes, places, wide, state, rows):
    """Rows of amplitudes, (re, im) pairs, into the lanes."""
    size = rows * 8 if wide else rows
    for r in range(rows):
        for lane in range(8):
            i = 2 * (places[lane] * size + (r * 8 + lane if wide else r))
            state[r * ROW + lane], state[r * ROW + 8 + lane] = amplitudes[i], amplitudes[i + 1]


@jit
def start_state(sweeps, gates, amplitudes, places, wide, state, rows):
    """The loaded amplitudes, or |0…0⟩ where no sweep makes the state itself."""
    if len(amplitudes):
        load_amplitudes(amplitudes, places, wide, state, rows)
    elif len(sweeps) == 0 or sweeps[0, 0] != PRODUCT:
        none = np.int64(0)  # a literal would have the callee compiled once more
        product_state(none, none, gates, wide, state, rows, state)


@jit
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


@jit
def run_sweeps(sweeps, epochs, gates, terms, tables, wide, front, back, rows, coefficients, factors):
    """Every sweep on `front`; permutations go to `back` and change their roles."""
    for k in range(len(sweeps)):
        mode, first, last = sweeps[k, 0], sweeps[k, 1], sweeps[k, 2]
        if mode == PHASE:
            active = active_cases(terms[first, 3])
            apply_phase(front, rows, terms[first, 1], terms[first, 2], factors, 64 * first, active)
        elif mode == PERMUTE:
            permute(front, back, rows, tables[first, 0])
            front, back = back, front
        elif mode == ROTATE:
            apply_diagonals(first, last, gates, epochs[sweeps[k, 3]], front, rows, coefficients)
        elif mode == PRODUCT:
            product_state(first, last, gates, wide, front, rows, coefficients)
        else:
            sweep_gates(mode, first, last, gates, front, rows, coefficients)


@jit
def read_strings(strings, group, weights, wide, examples, width, out):
    """Expectation values of a group's strings from transformed probabilities."""
    for k in range(len(strings)):
        if strings[k, 0] == group:
            for lane in range(8):
                if examples[lane] >= 0:
                    place = strings[k, 1] * 8 + (strings[k, 2] if wide else lane)
                    out[examples[lane] * width + strings[k, 3]] = weights[place]


@jit
def file_strings(strings, group, weights, wide, examples, width, cotangents):
    """The adjoint of `read_strings`, onto zeros."""
    weights[:] = 0
    for k in range(len(strings)):
        if strings[k, 0] == group:
            for lane in range(8):
                if examples[lane] >= 0:
                    place = strings[k, 1] * 8 + (strings[k, 2] if wide else lane)
                    weights[place] += cotangents[examples[lane] * width + strings[k, 3]]


@jit
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
    first, last, wide, qubits, count, per, batch, amp_set, amp_row, keep,
    sweeps, epochs, gates, spans, rotations, terms, tables, swaps, measured, groups, width, bases, strings, images,
    cos, sin, angles, amplitudes, kept, out,
):  # fmt: skip
    """Run blocks first … last − 1: final states to `kept` where `keep`, what is measured to `out`."""
    plus = np.int64(1)  # a literal would have its callees compiled once more
    rows = 1 << (qubits - 3 if wide else qubits)
    examples, angle_rows, places = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    coefficients, factors = np.empty(len(gates) * 32, cos.dtype), np.empty(len(terms) * 64, cos.dtype)
    spare = np.empty(rows * ROW if swaps or len(bases) else 0, cos.dtype)
    own = np.empty(0 if keep else rows * ROW, cos.dtype)
    weights, work = np.empty(rows * 8 if measured == EXPECTATIONS else 0, cos.dtype), np.empty(32, cos.dtype)
    for block in range(first, last):
        lanes_of(block, wide, count, per, batch, amp_set, amp_row, examples, angle_rows, places)
        fill_coefficients(gates, spans, rotations, cos, sin, angle_rows, angles, plus, coefficients)
        fill_factors(terms, cos, sin, angle_rows, angles, plus, factors)
        state = kept[block * rows * ROW : (block + 1) * rows * ROW] if keep else own
        front, back = (spare, state) if swaps & 1 else (state, spare)
        start_state(sweeps, gates, amplitudes, places, wide, front, rows)
        run_sweeps(sweeps, epochs, gates, terms, tables, wide, front, back, rows, coefficients, factors)
        if measured == EXPECTATIONS:
            for group in range(groups):
                rotated = state
                if has_basis(bases, group):
                    rotated = spare
                    spare[:] = state
                    change_basis(bases, group, spare, rows, plus, work)
                squares(rotated, rows, weights)
                walsh_hadamard(weights, rows, wide, CHUNK_ROWS)
                read_strings(strings, group, weights, wide, examples, width, out)
        else:
            write_out(measured, state, rows, wide, examples, images, out)


@jit
def has_basis(bases, group):
    """Whether a group measures any qubit along X or Y."""
    found = False
    for k in range(len(bases)):
        found |= bases[k, 0] == group
    return found


@jit
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


@jit
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


@jit
def backward(
    first, last, wide, qubits, count, per, batch, amp_set, amp_row, keep,
    sweeps, epochs, gates, spans, rotations, terms, tables, swaps, measured, groups, width, bases, strings, images,
    cos, sin, angles, amplitudes, kept, cotangents, angle_gradients, amplitude_gradients,
):  # fmt: skip
    """Gradients of blocks first … last − 1: for every example's angles [count, A], and its amplitudes where asked for."""
    plus, minus = np.int64(1), np.int64(-1)  # literals would have their callees compiled once more
    rows = 1 << (qubits - 3 if wide else qubits)
    examples, angle_rows, places = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    coefficients, factors = np.empty(len(gates) * 32, cos.dtype), np.empty(len(terms) * 64, cos.dtype)
    sums, phase_sums = np.empty(len(gates) * 24, cos.dtype), np.empty(len(terms) * 32, cos.dtype)
    psi, lam = np.empty(rows * ROW, cos.dtype), np.empty(rows * ROW, cos.dtype)
    spare = np.empty(rows * ROW if swaps or len(bases) else 0, cos.dtype)
    weights, work = np.empty(rows * 8 if measured == EXPECTATIONS else 0, cos.dtype), np.empty(32, cos.dtype)
    for block in range(first, last):
        lanes_of(block, wide, count, per, batch, amp_set, amp_row, examples, angle_rows, places)
        if keep:
            psi[:] = kept[block * rows * ROW : (block + 1) * rows * ROW]
        else:
            fill_coefficients(gates, spans, rotations, cos, sin, angle_rows, angles, plus, coefficients)
            fill_factors(terms, cos, sin, angle_rows, angles, plus, factors)
            front, back = (spare, psi) if swaps & 1 else (psi, spare)
            start_state(sweeps, gates, amplitudes, places, wide, front, rows)
            run_sweeps(sweeps, epochs, gates, terms, tables, wide, front, back, rows, coefficients, factors)
        fill_coefficients(gates, spans, rotations, cos, sin, angle_rows, angles, minus, coefficients)
        fill_factors(terms, cos, sin, angle_rows, angles, minus, factors)
        sums[:] = 0
        phase_sums[:] = 0
        if measured == EXPECTATIONS:
            lam[:] = 0
            for group in range(groups):
                file_strings(strings, group, weights, wide, examples, width, cotangents)
                walsh_hadamard(weights, rows, wide, CHUNK_ROWS)
                if has_basis(bases, group):
                    spare[:] = psi
                    change_basis(bases, group, spare, rows, plus, work)
                    scale(spare, rows, weights, spare)
                    change_basis(bases, group, spare, rows, minus, work)
                    accumulate(lam, spare, rows * ROW)
                else:
                    scale_onto(psi, rows, weights, lam)
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
                permute(psi, spare, rows, tables[start, 1])
                psi, spare = spare, psi
                permute(lam, spare, rows, tables[start, 1])
                lam, spare = spare, lam
            elif mode == ROTATE:
                undo_diagonals(start, stop, gates, epochs[sweeps[k, 3]], psi, lam, rows, coefficients, sums)
            else:  # before the first layer there is nothing to undo gates for
                sweep_adjoints(mode, start, stop, gates, psi, lam, rows, coefficients, sums, mode != PRODUCT)
        file_angles(
            gates,
            spans,
            rotations,
            terms,
            cos,
            sin,
            angle_rows,
            angles,
            sums,
            phase_sums,
            wide,
            examples,
            angle_gradients,
        )
        if len(amplitude_gradients):
            write_out(STATE, lam, rows, wide, examples, images[:0], amplitude_gradients)


@jit
def file_angles(
    gates, spans, rotations, terms, cos, sin, angle_rows, angles, sums, phase_sums, wide, examples, gradients
):  # fmt: skip
    """Derivatives of every angle from the gates' sums, by turning (X, Y, Z) back through each gate's rotations."""
    for g in range(len(gates)):
        if gates[g, 3]:
            lane_signs(sums, 24 * g, gates[g, 3])
        for lane in range(1 if wide else 8):
            if examples[lane] < 0:
                continue
            x, y, z = sums[24 * g + lane], sums[24 * g + 8 + lane], sums[24 * g + 16 + lane]
            if wide:
                for other in range(1, 8):
                    x += sums[24 * g + other]
                    y += sums[24 * g + 8 + other]
                    z += sums[24 * g + 16 + other]
            base, onto = angle_rows[lane] * angles, examples[lane] * angles
            for k in range(spans[g + 1] - 1, spans[g] - 1, -1):
                axis, angle = rotations[k, 0], rotations[k, 1]
                c, s = cos[base + angle], sin[base + angle]
                c, s = c * c - s * s, 2 * c * s
                gradients[onto + angle] += (x if axis == 0 else y if axis == 1 else z) / 2
                if axis == 0:
                    y, z = c * y + s * z, c * z - s * y
                elif axis == 1:
                    z, x = c * z + s * x, c * x - s * z
                else:
                    x, y = c * x + s * y, c * y - s * x
    for t in range(len(terms)):
        for lane in range(8):
            example = examples[0] if wide else examples[lane]
            if example >= 0:
                for case in range(4):
                    if terms[t, 3] >> (8 * case + lane) & 1:
                        gradients[example * angles + terms[t, 0]] += phase_sums[32 * t + 8 * case + lane]
