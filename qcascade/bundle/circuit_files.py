"""A kernel's circuits as files: pytket's JSON and OpenQASM 3, as designed and as compiled for the target.

What comes in: circuit templates. What goes out: for each the two texts, with the same symbols in both: data, weights and,
in compiled circuits, the angles that load amplitudes, all in radians. OpenQASM 3 declares them as `input float`; pytket
reads it by way of Qiskit, or the JSON. Both are equal up to global phase; OpenQASM numbers qubits as pytket orders them. A
designed circuit starts from the loaded state where its kernel loads one; a compiled one loads it itself, from |0…0⟩, on the
device's nodes. Routing moves qubits: the entry's `measured[q]` is the place, among the compiled circuit's qubits and so among
OpenQASM's q[…], at which the designed circuit's qubit q is in the end, and `nodes` says which node each of them is.

A symbol that is called like a word or gate of OpenQASM is written with an underscore after it. Gates without a name in
`stdgates.inc` are written in CX, RX, RY and RZ. Where a symbol's name or an expression has no form in OpenQASM there is no
such file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

import sympy
from pytket.circuit import Circuit, OpType
from pytket.passes import AutoRebase, DecomposeBoxes

from qcascade.bundle.manifest import CircuitEntry, CircuitFiles, file_name
from qcascade.circuits.angles import AngleCircuit, AngleMap, angle_name
from qcascade.kernels.base import QuantumKernel
from qcascade.targets import Target

_GATES = {
    OpType.Rx: "rx", OpType.Ry: "ry", OpType.Rz: "rz", OpType.U1: "p", OpType.CU1: "cp", OpType.CRx: "crx", OpType.CRy: "cry",
    OpType.CRz: "crz", OpType.H: "h", OpType.X: "x", OpType.Y: "y", OpType.Z: "z", OpType.S: "s", OpType.Sdg: "sdg",
    OpType.T: "t", OpType.Tdg: "tdg", OpType.SX: "sx", OpType.CX: "cx", OpType.CY: "cy", OpType.CZ: "cz", OpType.CH: "ch",
    OpType.SWAP: "swap", OpType.CCX: "ccx", OpType.CSWAP: "cswap",
}  # fmt: skip
_WRITTEN_OUT = {OpType.CX, OpType.Rx, OpType.Ry, OpType.Rz}
_WORDS = """
OPENQASM include input output qubit bit float int uint angle bool const gate def cal defcal pi tau euler sin cos tan exp ln sqrt mod
pow ctrl negctrl inv gphase U measure reset barrier if else for while in return let end box delay duration stretch complex array creg
qreg opaque extern switch case default break continue arccos arcsin arctan ceiling floor popcount rotl rotr real imag sizeof void
p x y z h s sdg t tdg sx id rx ry rz cx cy cz cp crx cry crz ch swap ccx cswap cu CX phase cphase u1 u2 u3 q
"""
_RESERVED = frozenset(_WORDS.split())


def circuit_files(
    kernel: QuantumKernel, folder: str, target: Target, known: dict[tuple[str, ...], CircuitEntry]
) -> tuple[tuple[CircuitEntry, ...], dict[str, bytes]]:
    """A kernel's entries in the manifest and the files they name.

    Args:
        kernel: Whose circuits.
        folder: Beginning of the files' names.
        target: What to compile for; for one without limits nothing is compiled.
        known: Entries by content; circuits that several kernels share are written once. What is written is added.

    Returns:
        Entries in the kernel's order; contents by path.

    Raises:
        TargetError: A circuit does not fit the target.
    """
    entries, files = [], dict[str, bytes]()
    for name, template in kernel.templates().items():
        content = (name, _json(template.circuit), str(template.data), str(template.weights), str(template.amplitudes))
        if content not in known:
            stem = f"circuits/{file_name(f'{folder}.{name}')}"
            designed = _write(stem, template.circuit, files)
            compiled = nodes = measured = None
            if target.qubits is not None:
                from qcascade.routing.compile import compile_template  # slow to import, and without a device not needed

                made = compile_template(template, target).circuit
                compiled = _write(f"{stem}.{file_name(target.name)}", substituted(made), files)
                nodes, measured = tuple(qubit.index[0] for qubit in made.circuit.qubits), made.measured
            known[content] = CircuitEntry(
                name=name,
                qubits=template.qubits,
                symbols=(*template.data, *template.weights),
                designed=designed,
                compiled=compiled,
                nodes=nodes,
                measured=measured,
            )
        entries.append(known[content])
    return tuple(entries), files


def substituted(circuit: AngleCircuit) -> Circuit:
    """An angle circuit in the template's own symbols.

    Example:
        >>> from qcascade.circuits.angles import angle_circuit
        >>> from qcascade.circuits.template import CircuitTemplate
        >>> from sympy import Symbol, pi
        >>> made = angle_circuit(CircuitTemplate(Circuit(1).Rx(2 * Symbol("w") / pi, 0), (), ("w",)))
        >>> substituted(made).free_symbols()
        {w}
    """
    angles = {sympy.Symbol(angle_name(k)): value for k, value in enumerate(_expressions(circuit.angles))}
    made = Circuit()
    for qubit in circuit.circuit.qubits:
        made.add_qubit(qubit)
    for command in circuit.circuit.get_commands():
        parameters = [sympy.sympify(parameter).xreplace(angles) for parameter in command.op.params]
        made.add_gate(command.op.type, parameters, command.args)
    return made


def _expressions(angles: AngleMap) -> list[sympy.Expr]:
    symbols = [sympy.Symbol(name) for name in angles.symbols]
    found = []
    for row, constant in zip(angles.coefficients, angles.constants, strict=True):
        terms = [_number(factor) * symbol for factor, symbol in zip(row, symbols, strict=True) if factor]
        found.append(sympy.Add(_number(constant), *terms))
    for factors, expression in angles.curved:
        found = [
            value + _number(factor) * expression if factor else value
            for value, factor in zip(found, factors, strict=True)
        ]
    return found


def _number(value: float) -> sympy.Expr:
    return sympy.Integer(int(value)) if float(value).is_integer() else sympy.Float(float(value))


def _write(stem: str, circuit: Circuit, files: dict[str, bytes]) -> CircuitFiles:
    files[f"{stem}.json"] = _json(circuit).encode()
    text = qasm3(circuit)
    if text is None:
        return CircuitFiles(pytket=f"{stem}.json")
    files[f"{stem}.qasm"] = text.encode()
    return CircuitFiles(pytket=f"{stem}.json", qasm=f"{stem}.qasm")


def _json(circuit: Circuit) -> str:
    return json.dumps(circuit.to_dict(), separators=(",", ":"), sort_keys=True)


def qasm3(circuit: Circuit) -> str | None:
    """OpenQASM 3 of a unitary circuit, its symbols inputs in radians, in alphabetical order; None where it has no form.

    Example:
        >>> from sympy import Symbol, pi
        >>> print(qasm3(Circuit(2).Ry(Symbol("w") / pi, 0).CX(0, 1)))
        OPENQASM 3.0;
        include "stdgates.inc";
        input float[64] w;
        qubit[2] q;
        ry(w) q[0];
        cx q[0], q[1];
        <BLANKLINE>
    """
    plain = circuit.copy()
    DecomposeBoxes().apply(plain)
    plain.replace_implicit_wire_swaps()
    if any(c.op.type not in {*_GATES, OpType.Barrier, OpType.noop} for c in plain.get_commands()):
        AutoRebase(_WRITTEN_OUT).apply(plain)
        plain.replace_implicit_wire_swaps()
    names = sorted(str(symbol) for symbol in plain.free_symbols())
    if any(not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names):
        return None
    written = {name: f"{name}_" if name in _RESERVED else name for name in names}
    if len({*written.values()}) < len(names):
        return None
    places = {qubit: place for place, qubit in enumerate(plain.qubits)}
    lines = ["OPENQASM 3.0;", 'include "stdgates.inc";']
    lines += [f"input float[64] {written[name]};" for name in names]
    lines.append(f"qubit[{plain.n_qubits}] q;")
    for command in plain.get_commands():
        if command.op.type in (OpType.Barrier, OpType.noop):
            continue
        angles = [_radians(parameter, written) for parameter in command.op.params]
        if any(angle is None for angle in angles):
            return None
        given = f"({', '.join(str(angle) for angle in angles)})" if angles else ""
        lines.append(f"{_GATES[command.op.type]}{given} {', '.join(f'q[{places[q]}]' for q in command.qubits)};")
    return "\n".join(lines) + "\n"


def _radians(half_turns: sympy.Expr | float, written: Mapping[str, str]) -> str | None:
    """A parameter in radians; None where it is not affine in its symbols."""
    if isinstance(half_turns, float | int):
        return repr(math.pi * half_turns)
    value = sympy.expand(half_turns * sympy.pi)
    free: Sequence[sympy.Symbol] = sorted(value.free_symbols, key=str)
    terms = []
    for symbol in free:
        factor = value.coeff(symbol)
        if factor.free_symbols:
            return None
        terms.append((float(factor), written[str(symbol)]))
    rest = value.subs(dict.fromkeys(free, 0))
    if sympy.expand(value - rest - sum(value.coeff(symbol) * symbol for symbol in free)) != 0:
        return None
    text = " + ".join(name if factor == 1 else f"{factor!r} * {name}" for factor, name in terms)
    if not text:
        return repr(float(rest))
    return text if rest == 0 else f"{text} + {float(rest)!r}"
