"""The simulator beside its peers: time and memory."""

from __future__ import annotations

from typing import Any

from results import between, rows, significant, table

_PEERS = {
    "qcascade": "QCascade",
    "tensorcircuit-jax": "TensorCircuit-NG, JAX",
    "pennylane-default-jax": "PennyLane default, jax.jit",
    "pennylane-lightning": "PennyLane lightning",
}


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    steps = [r for r in rows("engine_second") if r["gradients"] and "median_s" in r]
    sizes = sorted({(r["qubits"], r["batch"]) for r in steps})
    body = [
        (f"{qubits}, {batch}", *(_threads(steps, candidate, qubits) for candidate in _PEERS)) for qubits, batch in sizes
    ]
    forward = [r for r in rows("engine_second") if not r["gradients"]]
    aer = {(r["qubits"], r["threads"]): 1000 * r["median_s"] for r in rows("engine") if r["candidate"] == "aer"}
    found = {
        "engine.table": table(("qubits, batch", *_PEERS.values()), body),
        "engine.first": between((r["first_call_s"] for r in steps if r["candidate"] == "qcascade"), "{:.1f}") + " s",
    }
    for qubits in (16, 20):
        for threads in (1, 4):
            chosen = [1000 * r["median_s"] for r in forward if (r["qubits"], r["threads"]) == (qubits, threads)]
            found[f"engine.forward.{qubits}.{threads}"] = between(chosen, "{:.0f}")
            found[f"engine.forward.{qubits}.{threads}.aer"] = significant(aer[qubits, threads])
    for qubits in (4, 8, 16):
        ours = _median(steps, "qcascade", qubits, 1)
        peers = [_median(steps, peer, qubits, 1) for peer in _PEERS if peer != "qcascade"]
        found[f"engine.fold.{qubits}"] = significant(min(p for p in peers if p is not None) / ours, 2)
    return {**found, **_memory()}


def _median(steps: list[dict[str, Any]], candidate: str, qubits: int, threads: int) -> Any:
    chosen = [
        r["median_s"] for r in steps if (r["candidate"], r["qubits"], r["threads"]) == (candidate, qubits, threads)
    ]
    return chosen[0] if chosen else None


def _threads(steps: list[dict[str, Any]], candidate: str, qubits: int) -> str:
    both = [_median(steps, candidate, qubits, threads) for threads in (1, 4)]
    if both == [None, None]:
        return ""
    return " / ".join("–" if s is None else significant(1000 * s) for s in both)


def _memory() -> dict[str, str]:
    known = [r for r in rows("engine_memory") if r.get("memory") and r["gradients"] and r["threads"] == 1]

    def megabytes(candidate: str, qubits: int) -> str:  # the last run of the file
        chosen = [r["memory"] for r in known if (r["candidate"], r["qubits"]) == (candidate, qubits)]
        return f"{chosen[-1] / 1e6:.1f}"

    return {
        "engine.memory.4": megabytes("qcascade", 4),
        "engine.memory.4.peer": megabytes("pennylane-default-jax", 4),
        "engine.memory.16": megabytes("qcascade", 16),
        "engine.memory.16.peer": megabytes("pennylane-lightning", 16),
    }
