"""Whole models: the zoo, planning time, the page of a large plan, a training step of a large encoder, bundles in onnxruntime."""

from __future__ import annotations

from typing import Any

from results import between, rows, significant, table

_GRAPHS = ("export", "symbolic_trace")


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    return {**_zoo(), **_planning(), **_page(), **_training(), **_bundle()}


def _zoo() -> dict[str, str]:
    known = [r for r in rows("zoo") if "error" not in r]
    graph = [r for r in known if r["rung"] in _GRAPHS]
    return {
        "zoo.entries": str(len(rows("zoo"))),
        "zoo.compile": str(len(known)),
        "zoo.graph": str(len(graph)),
        "zoo.graph.percent": f"{100 * len(graph) / len(known):.1f} %",
        "zoo.one_length": str(sum(r["one_length"] for r in known)),
        "zoo.attention": str(sum(min(r["attentions"], r["attentions_expected"]) for r in known)),
        "zoo.attention.expected": str(sum(r["attentions_expected"] for r in known)),
        "zoo.embeddings": str(sum(min(r["embeddings"], r["embeddings_expected"]) for r in known)),
        "zoo.embeddings.expected": str(sum(r["embeddings_expected"] for r in known)),
        "zoo.offloaded": str(sum(r["offloaded"] for r in known)),
        "zoo.modules": ", ".join(r["name"] for r in known if r["rung"] not in _GRAPHS),
    }


def _planning() -> dict[str, str]:
    runs: dict[tuple[str, int], int] = {}  # how often a graph was measured so far
    numbers = []
    for r in rows("plan_speed"):
        runs[r["model"], r["nodes"]] = runs.get((r["model"], r["nodes"]), 0) + 1
        numbers.append(runs[r["model"], r["nodes"]])
    body = [
        (
            f"{r['model']}{', again' if number > 1 else ''}",
            f"{r['nodes']:,}",
            f"{r['regions']:,}",
            *(
                "–" if r[key] is None else significant(r[key], 2)
                for key in ("seconds_capture", "seconds_plan", "seconds_peer_regions", "seconds_peer_operators")
            ),
        )
        for r, number in zip(rows("plan_speed"), numbers, strict=True)
    ]
    head = (
        "stack of",
        "nodes",
        "regions",
        "capture",
        "plan",
        "torch's partitioner, our regions",
        "the same, every operator",
    )
    return {"plan_speed.table": table(head, body)}


def _page() -> dict[str, str]:
    last = [r for r in rows("html_report") if r.get("captured")][-1]
    return {
        "page.regions": f"{last['regions']:,}",
        "page.size": f"{last['bytes'] / 1e6:.1f} MB",
        "page.seconds": f"{last['seconds_interactive']:.1f} s",
        "page.load": f"{last['load_average']:.1f}",
    }


def _training() -> dict[str, str]:
    last = rows("training_step")[-1]["command"]
    runs = [r for r in rows("training_step") if r["command"] == last and "note" not in r]
    found = {"training.command": f"`{last}`", "training.parameters": f"{runs[0]['parameters']['classical'] / 1e6:.0f}M"}
    body = []
    for r in runs:
        peak = 100 * (r["peak_bytes"]["hybrid"] / r["peak_bytes"]["classical"] - 1)
        memory = f"{abs(peak):.0f} % {'more' if peak > 0 else 'less'}"
        found |= {f"training.{r['length']}": f"{r['ratio']:.2f}", f"training.{r['length']}.memory": memory}
        body.append((str(r["length"]), f"{r['ratio']:.2f}", between(r["ratios"]), memory))
    head = ("length n", "hybrid over classical, seconds", "rounds", "peak memory of the hybrid's process")
    return {**found, "training.table": table(head, body)}


def _last(runs: list[dict[str, Any]], threads: int, ratio: str) -> str:
    """A ratio of the last run that has it."""
    found = [r[ratio] for r in runs if r["threads"] == threads and r.get(ratio) is not None]
    return f"{found[-1]:.2f}" if found else "–"


def _bundle() -> dict[str, str]:
    known = rows("bundle")
    names = {"minilm": "MiniLM", "reference": "121M encoder"}
    kinds = {(r["model"], r["kind"]): r for r in known if "kind" in r}
    cases = sorted({(r["model"], r["batch"], r["length"]) for r in known if "batch" in r})
    body = [
        (
            names[model],
            str(batch),
            str(length),
            *(
                _last([r for r in known if (r["model"], r.get("batch"), r.get("length")) == (model, batch, length)], *what)
                for what in (
                    (1, "processor_hybrid_over_torch"), (4, "hybrid_over_torch"),
                    (1, "processor_hybrid_over_classical"), (4, "hybrid_over_classical"),
                )
            ),
        )
        for model, batch, length in cases
    ]  # fmt: skip
    head = (
        "model",
        "batch",
        "length",
        "onnxruntime over torch, the hybrid, one thread",
        "four threads",
        "hybrid over classical, both in onnxruntime, one thread",
        "four threads",
    )
    parts = [
        (
            names[model],
            kind,
            *(_measured(r, part, key) for part in ("export", "load") for key in ("processor_seconds", "seconds")),
            *(_measured(r, part, "peak_bytes") for part in ("export", "load")),
            f"{r['weights_bytes'] / 1e6:.0f} MB",
            f"{r['overhead_bytes'] / 1000:.0f} kB",
            f"{r['load_average']:.0f}",
        )
        for (model, kind), r in kinds.items()
    ]
    columns = (
        "model",
        "kind",
        "export, processor",
        "by the clock",
        "load, processor",
        "by the clock",
        "memory of export",
        "of load",
        "weights",
        "all other files",
        "load average",
    )
    return {"bundle.table": table(head, body), "bundle.parts": table(columns, parts)}


def _measured(row: dict[str, Any], part: str, key: str) -> str:
    """Seconds or megabytes of a part; a dash where it was not measured."""
    value = row.get(part, {}).get(key)
    if value is None:
        return "–"
    return f"{value / 1e6:.0f} MB" if key == "peak_bytes" else f"{significant(value, 2)} s"
