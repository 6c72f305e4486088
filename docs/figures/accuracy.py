"""Accuracies: SST-2 from scratch, MiniLM with layers replaced, a head under shots and noise, starts of an embedding."""

from __future__ import annotations

from statistics import mean
from typing import Any

from results import rows, spread, table


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    return {**_scratch(), **_minilm(), **_head(), **_entanglers(), **_starts()}


def _scratch() -> dict[str, str]:
    ways = [("softmax", "table"), ("pooling", "table"), ("softmax", "circuit"), ("pooling", "circuit")]
    options = {
        ("softmax", "table"): "",
        ("pooling", "table"): "`--attention pooling --slots 8`",
        ("softmax", "circuit"): "`--embedding circuit --angle-lr 5 --spread 0.5`",
        ("pooling", "circuit"): "all of these",
    }
    tests: dict[tuple[str, str], str] = {}
    for way in ways:
        found = [
            r for r in rows("sst2_from_scratch") if (r["settings"]["attention"], r["settings"]["embedding"]) == way
        ]
        tests[way] = spread(r["test"] for r in found)
    body = [
        (attention, embedding, options[attention, embedding], tests[attention, embedding])
        for attention, embedding in ways
    ]
    return {
        "scratch.table": table(("attention", "embedding", "options", "test"), body),
        "scratch.seeds": str(len({r["settings"]["seed"] for r in rows("sst2_from_scratch")})),
        **{f"scratch.{attention}.{embedding}": tests[attention, embedding] for attention, embedding in ways},
    }


def _minilm() -> dict[str, str]:
    runs = [*rows("sst2_minilm"), *rows("sst2_minilm_slow_distillation")]

    def of(**wanted: Any) -> str:
        chosen = [r for r in runs if all(r["settings"][k] == v for k, v in wanted.items())]
        chosen = [r for r in chosen if r["settings"]["new_lr"] == 3e-4]
        return spread(r["test"] for r in chosen)

    none = of(replaced=0, embedding=False)
    body = [("none", none, "")]
    found = {"minilm.0": none, "minilm.embedding": of(replaced=0, embedding=True)}
    for replaced in (1, 3, 6):
        with_, without = of(replaced=replaced, distill=400), of(replaced=replaced, distill=0)
        body.append((str(replaced), with_, without))
        found |= {f"minilm.{replaced}": with_, f"minilm.{replaced}.not_distilled": without}
    return {**found, "minilm.table": table(("layers replaced", "distilled", "not distilled"), body)}


def _head() -> dict[str, str]:
    runs = rows("head_on_devices")
    columns = {
        "exact": "exact",
        "1k shots": "1k shots",
        "10k shots": "10k shots",
        "ibm_torino, 10k shots": "ibm_torino, 10k",
        "ibm_torino, 10k shots, mitigated": "mitigated",
        "ibm_boston, 10k shots": "ibm_boston, 10k",
        "ibm_boston, 10k shots, mitigated": "mitigated",
    }
    cells = {name: spread((r["accuracy"][name] for r in runs), 1) for name in columns}
    linear = spread((r["linear"] for r in runs), 1)
    trained = {
        kind: spread((r["trained"][kind]["accuracy_whole_test"] for r in runs), 1) for kind in runs[0]["trained"]
    }
    return {
        "head.table": table((*columns.values(), "a linear layer instead"), [(*cells.values(), linear)]),
        "head.exact": cells["exact"],
        "head.torino": cells["ibm_torino, 10k shots"],
        "head.torino.mitigated": cells["ibm_torino, 10k shots, mitigated"],
        "head.linear": linear,
        "head.steps": str(runs[0]["trained_for_steps"]),
        "head.trained.exact": trained["exact gradients"],
        "head.trained.shots": trained["1k-shot gradients"],
    }


def _entanglers() -> dict[str, str]:
    known = [r for r in rows("entanglers") if "entangler" in r]
    kinds = list(dict.fromkeys(r["entangler"] for r in known))
    body = []
    for kind in kinds:
        runs = [r for r in known if r["entangler"] == kind]
        gates = runs[0].get("two_qubit_gates")
        body.append(
            (kind, spread(r["accuracy"] for r in runs), f"{gates['encoder']} + {gates['reuploader']}" if gates else "")
        )
    tests = {name: test for name, test, _ in body}
    return {
        "entanglers.source": tests["source"],
        "entanglers.regression": tests["logistic regression"],
        "entanglers.table": table(("entangler", "test", "two-qubit gates, encoder + re-uploader"), body),
    }


def _starts() -> dict[str, str]:
    ways: dict[str, list[dict[str, Any]]] = {}
    for r in sorted(rows("embedding_start"), key=lambda r: (r["settings"]["run"]["kernels"] or {}).get("spread", 0)):
        kernels = r["settings"]["run"]["kernels"]
        name = "table" if kernels is None else f"circuit, `--spread {kernels['spread']:g}`"
        ways.setdefault(name, []).append(r)
    folds = sorted({r["settings"]["fold"] for r in rows("embedding_start")})
    body = []
    for name, runs in ways.items():
        found = {r["settings"]["fold"]: r["measured"]["test"] for r in runs}
        cells = [f"{found[fold]:.2f}" if fold in found else "" for fold in folds]
        body.append((name, *cells, f"{mean(found.values()):.2f}" if len(found) == len(folds) else ""))
    return {"starts.table": table(("embedding", *(f"quarter {fold + 1}" for fold in folds), "mean"), body)}
