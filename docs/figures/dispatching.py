"""The dispatcher: waiting, bytes on the wire, faults; and samples beside pytket's."""

from __future__ import annotations

from results import between, rows


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    return {**_dispatch(), **_wire(), **_faults(), **_executors()}


def _dispatch() -> dict[str, str]:
    by = {r["way"]: r for r in rows("dispatch")}
    return {
        "dispatch.latency": f"{1000 * by['none']['latency']:.0f} ms",
        "dispatch.none.submissions": str(by["none"]["submissions"]),
        "dispatch.1.submissions": str(by["1 micro-batch"]["submissions"]),
        "dispatch.1": f"{by['1 micro-batch']['ratio']:.2f}",
        "dispatch.2": f"{by['2 micro-batches']['ratio']:.2f}",
        "dispatch.4": f"{by['4 micro-batches']['ratio']:.2f}",
        "dispatch.4.of_parts": f"{by['4 micro-batches']['of_parts_in_turn']:.2f}",
        "dispatch.limit": str(by["none, limited"]["limit"]),
        "dispatch.limited.1": f"{by['1 micro-batch, limited']['ratio']:.2f}",
        "dispatch.limited.4": f"{by['4 micro-batches, limited']['ratio']:.2f}",
        "dispatch.load": f"{by['none']['load']:.0f}",
        "dispatch.exact": f"{by['exact, microbatches=4']['ratio']:.2f}",
    }


def _wire() -> dict[str, str]:
    known = [r for r in rows("wire") if "kernel" in r]
    percent = {
        "wire.share": "share",
        "wire.share_of_binary": "share_of_binary",
        "wire.time.plain": "encoding_over_sending_plain",
        "wire.time.binary": "encoding_over_sending_binary",
    }
    found = {}
    for name, key in percent.items():
        form = "{:.1f}" if key == "share" else "{:.0f}"
        found[name] = between((100 * r[key] for r in known), form) + " %"
    return {**found, "wire.time.encoded": between((r["encoding_over_sending_encoded"] for r in known), "{:.0f}")}


def _faults() -> dict[str, str]:
    runs = rows("faults")
    return {
        "faults.runs": str(len(runs)),
        "faults.kills": str(sum(r["kills"] for r in runs)),
        "faults.twice": str(sum(r["twice"] + r["bought_again"] for r in runs)),
        "faults.unfetched": str(sum(r["unfetched"] for r in runs)),
        "faults.same_weights": str(sum(r["same_weights"] for r in runs)),
        "faults.not_truncated": str(sum(not r["truncated"] for r in runs)),
    }


def _executors() -> dict[str, str]:
    runs = rows("executors")
    return {
        "executors.sets": str(runs[0]["sets"]),
        "executors.qubits": str(runs[0]["qubits"]),
        "executors.shots": f"{runs[0]['shots']:,}",
        "executors.ours": between(r["ratio"]["ours"] for r in runs),
        "executors.aer": between(r["ratio"]["ours by Aer"] for r in runs),
    }
