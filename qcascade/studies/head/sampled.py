"""One sampled run: a head trained exactly and evaluated on finite shots, or under a device's noise, on part of test."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from qcascade.executors import Executor, NoisyExecutor, ReadoutInversion, ShotsExecutor, ZeroNoiseExtrapolation
from qcascade.studies.head.embeddings import file_of, load
from qcascade.studies.head.quantum import Pairs, build, fit, percent_right, seconds_of
from qcascade.studies.head.runs import QuantumRun, SampledRun
from qcascade.studies.head.variants import HeadVariant
from qcascade.studies.training import DivergedError


def measure(run: SampledRun, cache: Path) -> Mapping[str, Any]:
    """Evaluate; what a record of the study holds.

    Raises:
        TargetError: The device is unknown.
    """
    try:
        head, (rows, labels) = _trained(run.head, cache)
    except DivergedError as error:
        count = len(load(file_of(cache, run.head.embeddings, run.head.digest)).test[1])
        sentences = min(run.subset or count, count)
        return {"test": None, "exact": None, "sentences": sentences, "diverged": str(error)}
    if run.subset:
        chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(run.head.seed))[: run.subset]
        rows, labels = rows[chosen], labels[chosen]
    head.use("statevector")
    exact = percent_right(head, rows, labels)
    executor = _executor(run)
    if executor is None:
        return {"test": exact, "exact": exact, "sentences": len(labels)}
    head.use(executor)
    start = time.perf_counter()
    sampled = percent_right(head, rows, labels)
    last = list(executor.history)
    found: dict[str, Any] = {
        "test": sampled,
        "exact": exact,
        "sentences": len(labels),
        "seconds": seconds_of(start),
        "circuits": sum(one.circuits for one in last),
        "standard_error": max(one.standard_error for one in last),
    }
    if isinstance(executor, NoisyExecutor):
        found["two_qubit_gates"] = [int(executor.prepare(t).circuit.n_2qb_gates()) for t in head.templates().values()]
    return found


def _executor(run: SampledRun) -> Executor | None:
    if run.way == "exact":
        return None
    if run.way == "shots":
        return ShotsExecutor(run.shots, seed=run.head.seed)
    mitigation = (ReadoutInversion(), ZeroNoiseExtrapolation((1, 3))) if run.mitigated else ()
    return NoisyExecutor(run.way, run.shots, seed=run.head.seed, mitigation=mitigation)


@lru_cache(maxsize=2)
def _trained(run: QuantumRun, cache: Path) -> tuple[HeadVariant, Pairs]:
    """Trained again rather than kept: it is seconds, and the same for the same seed."""
    head, splits = build(run, load(file_of(cache, run.embeddings, run.digest)))
    fit(head, splits, run)
    return head, splits["test"]
