"""The dispatcher: waiting, bytes on the wire, faults; and samples beside pytket's."""

from __future__ import annotations

from results import between, rows, table


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    return {**_dispatch(), **_wire(), **_faults(), **_executors(), **_cluster()}


def _dispatch() -> dict[str, str]:
    known = rows("dispatch")
    by = {r["way"]: r for r in reversed(known)}  # the first batch
    names = {
        "none": "no dispatcher",
        "1 part, gradients together": "one part",
        "1 part, gradients apart": "one part, gradients apart",
        "2 micro-batches": "two micro-batches",
        "4 micro-batches": "four micro-batches",
    }
    free = [r for r in known if r["way"] in names]
    batches = sorted({r["batch"] for r in free})
    of = {(r["way"], r["batch"]): r for r in free}
    body = [
        (text, f"{of[way, batches[0]]['submissions']:.0f}", *(f"{of[way, batch]['ratio']:.2f}" for batch in batches))
        for way, text in names.items()
    ]
    exact = by["exact, microbatches=4"]
    return {
        "dispatch.latency": f"{1000 * by['none']['latency']:.0f} ms",
        "dispatch.trips.none": str(by["none"]["submissions"]),
        "dispatch.trips": str(by["1 part, gradients together"]["submissions"]),
        "dispatch.table": table(("", "submissions", *(f"batch of {batch}" for batch in batches)), body),
        "dispatch.limit": str(by["none, limited"]["limit"]),
        "dispatch.limited.1": f"{by['1 part, limited']['ratio']:.2f}",
        "dispatch.limited.4": f"{by['4 micro-batches, limited']['ratio']:.2f}",
        "dispatch.load": between((r["load"] for r in known if "load" in r), "{:.0f}"),
        "dispatch.exact": f"{exact['ratio']:.3f}",
        "dispatch.exact.interval": " to ".join(f"{value:.3f}" for value in exact["interval"]),
        "dispatch.dynamic": f"{100 * (by['exact, by Dynamic']['ratio'] - 1):.0f} %",
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
    return {**found, "wire.time.encoded": between((r["encoding_over_sending_encoded"] for r in known), "{:.1f}")}


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
        "executors.ours": between((r["ratio"]["ours"] for r in runs), "{:.3f}"),
        "executors.aer": between(r["ratio"]["ours by Aer"] for r in runs),
    }


def _cluster() -> dict[str, str]:
    found = {"cluster.load": between((r["load"] for r in rows("cluster")), "{:.0f}")}
    for row in rows("cluster"):
        if "killed" in row:
            found["cluster.killed"] = f"{row['ratio']:.2f}"
        else:
            found[f"cluster.efficiency.{row['workers']}"] = f"{row['efficiency']:.2f}"
            found[f"cluster.calibration.{row['workers']}"] = f"{row['calibration']:.2f}"
            found[f"cluster.busy.{row['workers']}"] = f"{row['busy']:.2f}"
            found[f"cluster.alone.{row['workers']}"] = f"{row['efficiency_alone']:.2f}"
    return found
