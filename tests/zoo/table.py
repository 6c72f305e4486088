"""The zoo's table: `python tests/zoo [NAME …]` examines every entry (or those whose names hold NAME) and prints a line each.

Results are also written as JSON lines to tests/benchmarks/results/zoo.jsonl when every entry was examined.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import traceback
from pathlib import Path

import torch

from . import plain_zoo, transformers_zoo
from .entries import Entry
from .examine import Result, examine

ENTRIES: list[Entry] = [*transformers_zoo.ENTRIES, *plain_zoo.ENTRIES]
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "zoo.jsonl"
_GRAPHS = ("export", "symbolic_trace")


def main(names: list[str]) -> int:
    """Print the table; the number of entries that do not hold."""
    torch.set_num_threads(1)
    logging.getLogger("qcascade").setLevel(logging.ERROR)  # the steps down are in the table
    chosen = [e for e in ENTRIES if not names or any(n.lower() in e.name.lower() for n in names)]
    print(f"{'model':36} {'family':19} {'rung':14} attention tokens offloaded   outputs gradients  seconds")
    results: list[Result] = []
    bad = 0
    for entry in chosen:
        try:
            result = examine(entry)
        except Exception as error:  # the table goes on, and the end says how many failed
            bad += 1
            print(f"{entry.name:36} {entry.family:19} FAILED {type(error).__name__}: {str(error)[:300]}", flush=True)
            if names:
                traceback.print_exc()
            continue
        results.append(result)
        bad += bool(result.failures)
        print(
            f"{result.name:36} {result.family:19} {result.rung:14} {result.attentions:4}/{result.attentions_expected:<4}"
            f" {result.embeddings:3}/{result.embeddings_expected:<3} {result.offloaded:9} {result.output_error:9.1e}"
            f" {result.gradient_error:9.1e} {result.seconds:8.1f}  {'; '.join(result.failures)}",
            flush=True,
        )
        if names:
            print("\n".join(f"    note: {note}" for note in result.notes))
            print("\n".join(f"    kept or carried: {reason}" for reason in dict.fromkeys(result.reasons)))
    graph = sum(r.rung in _GRAPHS for r in results)
    attention = sum(min(r.attentions, r.attentions_expected) for r in results)
    tokens = sum(min(r.embeddings, r.embeddings_expected) for r in results)
    print(
        f"{len(results)} of {len(chosen)} compile, {graph} at graph level ({100 * graph / max(1, len(chosen)):.0f} %); attention"
        f" {attention} of {sum(r.attentions_expected for r in results)}, token embeddings {tokens} of"
        f" {sum(r.embeddings_expected for r in results)} found; {sum(r.offloaded for r in results)} regions offloaded;"
        f" {bad} entries do not hold"
    )
    if not names:
        RESULTS.write_text("".join(json.dumps(_plain(r)) + "\n" for r in results))
    return bad


def _plain(result: Result) -> dict[str, object]:
    values = dataclasses.asdict(result)
    values["seconds"] = round(result.seconds, 2)
    values["reasons"] = list(dict.fromkeys(result.reasons))
    return values
