"""Which runs the study makes, and what validation chooses: nothing here reads a figure of test.

A value with which a run diverges is the worst of its choices; the study ends only where all of them diverge.

1. *Protocol*, on the base architecture: inputs, learning rate, scale of the angles and warm start, one after the other, each the best of
   its choices by mean dev accuracy.
2. *Main effects* of the architecture about the base, one factor at a time: blocks, uploads, offsets, encoders, and qubits (on fewer
   sentences, the same for all widths; not chosen from).
3. *Final*: the architecture with the best mean dev accuracy of these, and of all factors' best joined; on frozen and on fine-tuned
   embeddings, with every module taken out in turn, and as the definition has it (raw inputs, angles in ±π).
4. *Classical*: every method's best of a small grid by dev accuracy at seed 0; the MLP and random features within the final head's
   parameters.
5. *Sampled*: the final head on finite shots; a small head of 16 amplitudes on shots and under devices' noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from qcascade.errors import ExecutionError, PlanError
from qcascade.executors import NoisyExecutor
from qcascade.kernels.amplitudes import MAX_QUBITS, register
from qcascade.studies.devices import checked_device
from qcascade.studies.head import classical, quantum, sampled
from qcascade.studies.head.embeddings import compute, file_of, load, part_of
from qcascade.studies.head.runs import ABLATIONS, CLASSICAL, ClassicalRun, QuantumRun, SampledRun
from qcascade.studies.records import Record, Records
from qcascade.studies.runs import run_all
from qcascade.studies.texts import digest_of, read_texts

Value = TypeVar("Value")

PROTOCOL: Mapping[str, tuple[Any, ...]] = {
    "inputs": ("raw", "centred", "standard", "pca128"),
    "rate": (0.01, 0.03, 0.1),
    "start": (0.3, math.pi),
    "warm": (False, True),
}
FACTORS: Mapping[str, tuple[Any, ...]] = {
    "blocks": (1, 2, 4, 8),
    "uploads": (1, 2, 4),
    "offsets": (1, 2, 3, 5),
    "encoders": (1, 2, 3, 6),
}
QUBITS = (4, 6, 8, 10, 12, 14)
GRIDS: Mapping[str, tuple[tuple[float, int], ...]] = {  # strength, width
    "logistic": tuple((c, 0) for c in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)),
    "svm": tuple((c, 0) for c in (0.3, 1.0, 3.0)),
    "mlp": tuple((rate, width) for rate in (3e-3, 1e-2) for width in (16, 32, 64, 0)),
    "random-features": tuple((c, width) for c in (0.1, 1.0, 10.0) for width in (100, 300, 1000)),
}
# 886 parameters for MiniLM's 384 features in two classes
SOURCE = QuantumRun(seed=0, qubits=14, uploads=13, blocks=1, offsets=3)
SMALL = QuantumRun(seed=0, inputs="pca16", blocks=2, offsets=1, qubits=6, entangler="chain")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is run; every figure names its seeds.

    Attributes:
        seeds: Of the final heads and of the classical columns.
        screening: Of the protocol and the main effects.
        ablation: Of the ablations.
        sampled: Of the sampled runs.
        epochs: Of a run.
        qubits: Widths of the sweep over qubits; empty leaves it out.
        qubit_texts: Sentences of train in the sweep over qubits.
        qubit_epochs: Epochs of it.
        subset: Test sentences under a device's noise.
        devices: Whose noise.
        tuned: Also on fine-tuned embeddings.
        source: Also train the 14-qubit head of 886 parameters, one seed, on the sweep's budget.
    """

    seeds: int = 10
    screening: int = 3
    ablation: int = 5
    sampled: int = 3
    epochs: int = 8
    qubits: tuple[int, ...] = QUBITS
    qubit_texts: int = 2000
    qubit_epochs: int = 4
    subset: int = 400
    devices: tuple[str, ...] = ("ibm_torino", "ibm_boston")
    source: bool = True
    tuned: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """What validation chose, with the mean dev accuracy of every choice."""

    factor: str
    scores: Mapping[str, float]  # −∞: diverged
    chosen: Any


@dataclass(frozen=True, slots=True)
class Results:
    """All runs of the study, and the choices."""

    protocol: tuple[Choice, ...]
    base: QuantumRun
    effects: Mapping[str, Mapping[str, tuple[Record, ...]]]  # factor: value: its seeds
    final: QuantumRun
    quantum: Mapping[str, tuple[Record, ...]]  # "frozen", "tuned", "as defined", "without …"
    classical: Mapping[tuple[str, str], tuple[Record, ...]]  # (method, embeddings)
    sampled: Mapping[str, tuple[Record, ...]]  # the way, in words


class Screening:
    """The study's stages on one folder of results; what is done there is not done again.

    Args:
        out: Folder of the results, its checkpoints/ holding the embeddings.
        budget: How much to run.
        data: Folder of texts.
        workers: Processes.
        said: Called with every run that ends.
        device: Where MiniLM runs.

    Raises:
        ExecutionError: The data cannot be used, or there is no such device; before anything is run.
        PlanError: A width of the sweep is out of range.
    """

    def __init__(
        self,
        out: Path,
        budget: Budget,
        data: Path,
        *,
        workers: int = 1,
        said: Callable[[Record], object] | None = None,
        device: str = "cpu",
    ) -> None:
        self.out, self.budget, self.data, self.workers, self.said = out, budget, data, workers, said
        self.device = device
        self.cache = out / "checkpoints"
        labels = read_texts(data, needs_dev=True).train.labels
        self.digest = digest_of(data)
        self.base = QuantumRun(seed=0, epochs=budget.epochs, digest=self.digest)
        checked_device(device)
        for seed in range(budget.seeds):
            _check_part([labels[place] for place in part_of(len(labels), seed, self.base.share).tolist()], seed)
        if bad := [qubits for qubits in budget.qubits if not self.base.offsets < qubits <= MAX_QUBITS]:
            raise PlanError(f"qubits {bad} cannot be swept; {self.base.offsets + 1} to {MAX_QUBITS} are accepted.")
        for name in budget.devices:
            _check_noise(name)

    def run(self, stage: Callable[[Results], object] | None = None) -> Results:
        """All stages, fine-tuning last; `stage` is given what there is after each of them."""
        self._embed("frozen")
        protocol, base = self.choose_protocol(self.base)
        effects, final = self.main_effects(base)
        heads = {"frozen": self.quantum_runs(seeded(final, self.budget.seeds))}
        found = Results(protocol, base, effects, final, heads, {}, {})
        parameters = int(heads["frozen"][0].measured["parameters"])
        for grow in (
            lambda r: replace(
                r, classical=self.classical_columns("frozen", ("logistic", "mlp", "random-features"), parameters)
            ),
            lambda r: replace(r, quantum={**r.quantum, **self.ablations(final)}),
            lambda r: replace(r, sampled=self.sampled_ways(final)),
            lambda r: replace(r, effects={**r.effects, **self.widths(base)}),
            lambda r: replace(r, classical={**r.classical, **self.classical_columns("frozen", ("svm",), parameters)}),
            lambda r: self._on_tuned(r, final, parameters),
        ):
            if stage is not None:
                stage(found)
            found = grow(found)
        return found

    def quantum_runs(self, runs: Sequence[QuantumRun]) -> tuple[Record, ...]:
        """Records of quantum runs."""
        return self._all(runs, partial(quantum.measure, cache=self.cache), "quantum")

    def choose_protocol(self, base: QuantumRun) -> tuple[tuple[Choice, ...], QuantumRun]:
        """Stage 1."""
        choices = []
        for factor, values in PROTOCOL.items():
            found = {v: self.quantum_runs(seeded(with_value(base, factor, v), self.budget.screening)) for v in values}
            scores = {value: mean_dev(runs) for value, runs in found.items()}
            chosen = best_of(factor, scores)
            base = with_value(base, factor, chosen)
            choices.append(Choice(factor, {_said(value): score for value, score in scores.items()}, chosen))
        return tuple(choices), base

    def main_effects(self, base: QuantumRun) -> tuple[dict[str, dict[str, tuple[Record, ...]]], QuantumRun]:
        """Stage 2 without the qubits, and the head that stage 3 takes: the best on dev of these, or of their best joined."""
        found: dict[str, dict[str, tuple[Record, ...]]] = {}
        joined, candidates = base, dict[QuantumRun, float]()
        for factor, values in FACTORS.items():
            scores = {}
            for value in values if factor != "encoders" else self._encoders(base, values):
                one = with_value(base, factor, value)
                runs = self.quantum_runs(seeded(one, self.budget.screening))
                found.setdefault(factor, {})[_said(value)] = runs
                scores[value] = candidates[one] = mean_dev(runs)
            if max(scores.values()) > -math.inf:
                joined = with_value(joined, factor, best_of(factor, scores))
        runs = self.quantum_runs(seeded(joined, self.budget.screening))
        found["all factors' best"] = {architecture(joined): runs}
        candidates[joined] = mean_dev(runs)
        return found, max(candidates, key=lambda one: candidates[one])

    def widths(self, base: QuantumRun) -> dict[str, dict[str, tuple[Record, ...]]]:
        """Stage 2's qubits, and the source's width and number of parameters, all on the same fewer sentences."""
        less: dict[str, Any] = {"texts": self.budget.qubit_texts, "epochs": self.budget.qubit_epochs, "encoders": 0}
        runs = {
            _said(qubits): self.quantum_runs(seeded(replace(base, qubits=qubits, **less), self.budget.screening))
            for qubits in self.budget.qubits
        }
        found = {"qubits": runs} if runs else {}
        if self.budget.source:
            names = ("inputs", "qubits", "uploads", "blocks", "offsets")
            source = replace(base, **{name: getattr(SOURCE, name) for name in names}, **less)
            found["the source's width and parameters"] = {architecture(source): self.quantum_runs(seeded(source, 1))}
        return found

    def ablations(self, final: QuantumRun) -> dict[str, tuple[Record, ...]]:
        """Stage 3, what is compared with the final head."""
        heads = {"as defined": replace(final, inputs="raw", start=math.pi, warm=False)}
        heads |= {f"without {module}": replace(final, without=module) for module in ABLATIONS}
        return {name: self.quantum_runs(seeded(run, self.budget.ablation)) for name, run in heads.items()}

    def classical_columns(
        self, embeddings: str, methods: Sequence[str], parameters: int
    ) -> dict[tuple[str, str], tuple[Record, ...]]:
        """Stage 4."""
        found = {}
        work = partial(classical.measure, cache=self.cache)
        for method in methods:
            bounded = parameters if method in ("mlp", "random-features") else 0
            grid = [
                ClassicalRun(0, embeddings, method, c, width, bounded, digest=self.digest) for c, width in GRIDS[method]
            ]
            tried = self._all(grid, work, "classical")
            allowed = {
                run: mean_dev((record,))
                for record, run in zip(tried, grid, strict=True)
                if not bounded or record.measured["parameters"] <= bounded
            }
            chosen = best_of(f"setting of {method}", allowed) if allowed else grid[0]
            runs = [replace(chosen, seed=seed) for seed in range(self.budget.seeds)]
            found[method, embeddings] = self._all(runs, work, "classical")
        return found

    def _on_tuned(self, results: Results, final: QuantumRun, parameters: int) -> Results:
        """The final head and the classical columns on fine-tuned embeddings."""
        if not self.budget.tuned:
            return results
        self._embed("tuned")
        runs = self.quantum_runs(seeded(replace(final, embeddings="tuned"), self.budget.seeds))
        columns = self.classical_columns("tuned", CLASSICAL, parameters)
        return replace(results, quantum={**results.quantum, "tuned": runs}, classical={**results.classical, **columns})

    def sampled_ways(self, final: QuantumRun) -> dict[str, tuple[Record, ...]]:
        """Stage 5."""
        small = replace(SMALL, epochs=self.budget.epochs, digest=self.digest)
        ways: dict[str, SampledRun] = {}
        for name, head, subset in (("final head", final, 0), ("16 amplitudes", small, self.budget.subset)):
            ways[f"{name}: exact"] = SampledRun(head, "exact", subset=subset)
            for shots in (100, 1000, 10_000):
                ways[f"{name}: {shots} shots"] = SampledRun(head, "shots", shots, subset=subset)
        for device in self.budget.devices:
            ways[f"16 amplitudes: {device}, 1000 shots"] = SampledRun(small, device, 1000, subset=self.budget.subset)
            ways[f"16 amplitudes: {device}, 10000 shots, mitigated"] = SampledRun(
                small, device, 10_000, mitigated=True, subset=self.budget.subset
            )
        work = partial(sampled.measure, cache=self.cache)
        runs = [
            (name, replace(way, head=replace(way.head, seed=seed)))
            for seed in range(self.budget.sampled)  # a seed's ways in a row: it is trained once
            for name, way in ways.items()
        ]
        records = self._all([run for _, run in runs], work, "sampled")
        return {
            name: tuple(record for (other, _), record in zip(runs, records, strict=True) if other == name)
            for name in ways
        }

    def _embed(self, kind: str) -> None:
        compute(self.data, self.cache, kind, self.digest, self.device)

    def _encoders(self, base: QuantumRun, values: Sequence[int]) -> list[int]:
        """The numbers of encoders that can give Q values."""
        each = register(load(file_of(self.cache, base.embeddings, self.digest)).train[0].shape[1] + 1)
        return [value for value in values if each * value >= base.qubits]

    def _all(self, runs: Sequence[Any], work: Callable[[Any], Mapping[str, Any]], file: str) -> tuple[Record, ...]:
        records = Records(self.out / f"{file}.jsonl")
        return tuple(run_all(runs, work, records, workers=self.workers, threads=1, said=self.said))


def seeded(run: QuantumRun, seeds: int) -> list[QuantumRun]:
    """A run with the first seeds."""
    return [replace(run, seed=seed) for seed in range(seeds)]


def with_value(run: QuantumRun, factor: str, value: object) -> QuantumRun:
    """A run with another value of one field."""
    return replace(run, **{factor: value})  # type: ignore[arg-type]


def mean_dev(runs: Sequence[Record]) -> float:
    """What is chosen by; −∞ where a run diverged."""
    scores = [run.measured["dev"] for run in runs]
    return -math.inf if None in scores else fmean(scores)


def best_of(name: str, scores: Mapping[Value, float]) -> Value:
    """The value with the highest score, the first of equal ones.

    Raises:
        ExecutionError: All diverged.

    Example:
        >>> best_of("rate", {0.01: 72.1, 0.03: 74.4, 0.1: -math.inf})
        0.03
    """
    if max(scores.values()) == -math.inf:
        tried = ", ".join(str(value) for value in scores)
        raise ExecutionError(
            f"training diverges with every {name} ({tried}); lower the rates that qcascade.studies.head.screening tries."
        )
    return max(scores, key=lambda value: scores[value])


def architecture(run: QuantumRun) -> str:
    """Its shape in words."""
    encoders = f", E={run.encoders}" if run.encoders else ""
    return f"Q={run.qubits}, N={run.uploads}, M={run.blocks}, C={run.offsets}{encoders}"


def _check_part(labels: Sequence[str], seed: int) -> None:
    """Refuses a seed's part of train that no classifier can be fitted to."""
    if len(set(labels)) < 2:
        raise ExecutionError(
            f"the part of train that seed {seed} draws ({len(labels)} texts) has the label {labels[0]!r} alone; give train.tsv more texts "
            "of other labels."
        )


def _check_noise(device: str) -> None:
    """Refuses a device that is unknown, has no noise to simulate, or is too small."""
    target = NoisyExecutor(device, 1).target
    if target.qubits is not None and target.qubits < SMALL.qubits:
        raise ExecutionError(
            f"device {device!r} has {target.qubits} qubits; the head run under noise needs {SMALL.qubits}: choose another."
        )


def _said(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
