"""Routing beside Qiskit and TKET, and predicted fidelity beside Aer's."""

from __future__ import annotations

from typing import Any

from results import rows, table


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    summaries = {(r["summary"], r["target"]): r for r in rows("routing") if "summary" in r}
    public, kernels = summaries["public", "all"], summaries["kernels", "all"]
    unitary = next(r for r in rows("routing_unitary") if "summary" in r)
    body = [
        ("public circuits (mqt.bench, Qiskit's library)", *_four(public["ours"])),
        ("of these, where two-qubit gates are left", f"{public['ours_where_gates_are_left']:.2f}", "", "", ""),
        ("our kernels' circuits, along chains with as many layers", *_four(kernels["ours"])),
        ("the same with no fewer two-qubit gates than the source", *_four(kernels["ours_no_fewer"])),
        ("TKET with noise-aware placement, public circuits", *_four(public["tket_noise_aware"])),
    ]
    fidelity = rows("fidelity")[-1]
    return {
        "routing.table": table(("", "loss", "ESP", "two-qubit gates", "their depth"), body),
        "routing.public": f"{public['ours']['loss']:.2f}",
        "routing.public.gates": f"{public['ours']['two_qubit_gates']:.2f}",
        "routing.kernels": f"{kernels['ours']['loss']:.2f}",
        "routing.pairs": str(public["rows"] + kernels["rows"]),
        "routing.worse": str(len(public["worse"]) + len(kernels["worse"])),
        "routing.unitary": f"{unitary['ours']['loss']:.2f}",
        "routing.unitary.worse": ", ".join(name for name, _, _ in unitary["worse"]),
        "fidelity.pairs": str(fidelity["pairs"]),
        "fidelity.rank": f"{fidelity['spearman']:.3f}",
        "fidelity.median": f"{fidelity['median_error']:.3f}",
        "fidelity.largest": f"{fidelity['largest_error']:.1f}",
    }


def _four(ratios: dict[str, Any]) -> list[str]:
    return [f"{ratios[key]:.2f}" for key in ("loss", "esp", "two_qubit_gates", "two_qubit_depth")]
