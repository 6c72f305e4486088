"""The zoo's table: `python tests/zoo [--workers N] [NAME …]` examines every entry, or those whose names hold a NAME.

It prints a line each, in the order of the list; N processes share the entries. When every entry was examined, the results
are also written as JSON lines to tests/benchmarks/results/zoo.jsonl, those that failed with their error.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import multiprocessing
import os
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from . import plain_zoo, transformers_zoo
from .entries import Entry
from .examine import Result, examine

ENTRIES: list[Entry] = [*transformers_zoo.ENTRIES, *plain_zoo.ENTRIES]
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "zoo.jsonl"
_GRAPHS = ("export", "symbolic_trace")
_NAMED = {entry.name: entry for entry in ENTRIES}


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """An entry that could not be examined."""

    name: str
    family: str
    error: str
    trace: str


def main(arguments: Sequence[str]) -> int:
    """Print the table; the number of entries that do not hold."""
    parser = argparse.ArgumentParser(prog="python tests/zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), metavar="N")
    given = parser.parse_args(arguments)
    chosen = [e for e in ENTRIES if not given.names or any(n.lower() in e.name.lower() for n in given.names)]
    print(f"{'model':38} {'family':19} {'rung':14} attention tokens offloaded   outputs gradients  seconds", flush=True)
    results: list[Result] = []
    failed: list[Failed] = []
    for outcome in _examined([entry.name for entry in chosen], min(given.workers, len(chosen))):
        print(_line(outcome, bool(given.names)), flush=True)
        if isinstance(outcome, Failed):
            failed.append(outcome)
        else:
            results.append(outcome)
    print(summary(results, len(chosen)))
    if not given.names:
        rows = [*map(_plain, results), *({"name": f.name, "family": f.family, "error": f.error} for f in failed)]
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(failed) + sum(bool(result.failures) for result in results)


def summary(results: Sequence[Result], chosen: int) -> str:
    """One line on all entries."""
    graph = sum(r.rung in _GRAPHS for r in results)
    attention = sum(min(r.attentions, r.attentions_expected) for r in results)
    tokens = sum(min(r.embeddings, r.embeddings_expected) for r in results)
    return (
        f"{len(results)} of {chosen} compile, {graph} at graph level ({100 * graph / max(1, chosen):.1f} %,"
        f" {sum(r.one_length for r in results)} of them at the example's length only); attention"
        f" {attention} of {sum(r.attentions_expected for r in results)}, token embeddings {tokens} of"
        f" {sum(r.embeddings_expected for r in results)} found; {sum(r.offloaded for r in results)} regions offloaded;"
        f" {chosen - sum(not r.failures for r in results)} entries do not hold"
    )


def _examined(names: Sequence[str], workers: int) -> Iterator[Result | Failed]:
    if workers < 2:
        yield from map(_examine, names)
        return
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not outlive a fork
    with ProcessPoolExecutor(workers, spawn) as pool:
        yield from pool.map(_examine, names)


def _examine(name: str) -> Result | Failed:
    torch.set_num_threads(1)
    logging.getLogger("qcascade").setLevel(logging.ERROR)  # the steps down are in the table
    entry = _NAMED[name]
    try:
        return examine(entry)
    except Exception as error:  # the table goes on, and the end says how many failed
        return Failed(name, entry.family, f"{type(error).__name__}: {str(error)[:300]}", traceback.format_exc())


def _line(result: Result | Failed, details: bool) -> str:
    if isinstance(result, Failed):
        return f"{result.name:38} {result.family:19} FAILED {result.trace if details else result.error}"
    line = (
        f"{result.name:38} {result.family:19} {result.rung:14} {result.attentions:4}/{result.attentions_expected:<4}"
        f" {result.embeddings:3}/{result.embeddings_expected:<3} {result.offloaded:9} {result.output_error:9.1e}"
        f" {result.gradient_error:9.1e} {result.seconds:8.1f}  {'; '.join(result.failures)}"
    )
    if not details:
        return line
    notes = [f"    note: {note}" for note in result.notes]
    return "\n".join([line, *notes, *(f"    kept or carried: {r}" for r in dict.fromkeys(result.reasons))])


def _plain(result: Result) -> dict[str, object]:
    values = dataclasses.asdict(result)
    values["seconds"] = round(result.seconds, 2)
    values["reasons"] = list(dict.fromkeys(result.reasons))
    return values
