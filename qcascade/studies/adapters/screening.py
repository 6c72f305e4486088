"""Which runs the study makes, and what validation chooses: nothing here reads a figure of test.

For each task and method the learning rate is the best of two by dev at seed 0, each with the study's own number of steps, one that
diverges being the worst; then all seeds run with it. Sizes about the default (rank, virtual tokens, layers of the circuit) are swept
with that rate; the language model's width, and with it the amplitude adapter's qubits, with the small model pretrained anew for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch

from qcascade.errors import ExecutionError
from qcascade.studies.adapters import language, sentences
from qcascade.studies.adapters.runs import METHODS, AdapterRun, LanguageModel
from qcascade.studies.records import Record, Records
from qcascade.studies.runs import run_all
from qcascade.studies.texts import digest_of
from qcascade.studies.training import DivergedError

SIZES: Mapping[str, tuple[int, ...]] = {
    "lora": (1, 4, 16),
    "sora": (1, 4, 16),
    "prefix": (2, 8, 32),
    "amplitude": (1, 2, 4),
}
DEFAULT_SIZE: Mapping[str, int] = {"none": 0, "full": 0, "lora": 4, "sora": 4, "prefix": 8, "amplitude": 1}
RATES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "sentences": {
        "none": (1e-3,),  # the head's own rate is the same for all; there is nothing else to train
        "full": (5e-5, 2e-4),
        "lora": (1e-3, 5e-3),
        "sora": (1e-3, 5e-3),
        "prefix": (5e-3, 3e-2),
        "amplitude": (3e-3, 3e-2),
    },
    "language": {
        "none": (1e-3,),
        "full": (2e-4, 2e-3),
        "lora": (5e-3, 2e-2),
        "sora": (5e-3, 2e-2),
        "prefix": (3e-2, 1e-1),
        "amplitude": (3e-3, 3e-2),
    },
}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is run, the same for all methods.

    Attributes:
        seeds: Of every method at its default size.
        sweep: Seeds of the other sizes; 0 leaves them out.
        steps: Of training on sentences.
        batch: Sentences a step.
        evaluated: Dev and test sentences scored; 0 is all.
        language_steps: Of training on blocks of words.
        language_batch: Blocks a step.
        language_evaluated: Dev and test blocks scored; 0 is all.
        widths: Of the language model in the sweep over qubits, which are log2 of these.
        language: The language model.
        methods: Those compared.
    """

    seeds: int = 5
    sweep: int = 2
    steps: int = 216
    batch: int = 32
    evaluated: int = 0
    language_steps: int = 200
    language_batch: int = 16
    language_evaluated: int = 400
    widths: tuple[int, ...] = (32, 128)
    language: LanguageModel = field(default_factory=LanguageModel)
    methods: tuple[str, ...] = METHODS


@dataclass(frozen=True, slots=True)
class Results:
    """All runs of the study; a rate that diverged has no figure."""

    rates: Mapping[tuple[str, str], Mapping[float, float | None]]  # (task, method): rate: dev's figure at seed 0
    main: Mapping[tuple[str, str], tuple[Record, ...]]  # (task, method): its seeds
    sizes: Mapping[tuple[str, str, int], tuple[Record, ...]]  # (task, method, size)
    widths: Mapping[tuple[str, int], tuple[Record, ...]]  # (method, width) of the language model


class Screening:
    """The study on a folder of results; what is done there is not done again.

    Args:
        out: Folder of the results.
        budget: How much to run.
        data: Folder of labelled sentences; None leaves that task out.
        reviews: Folder of long texts for the language model; None leaves that task out.
        workers: Processes.
        device: Where models run.
        said: Called with every run that ends.
    """

    def __init__(
        self,
        out: Path,
        budget: Budget,
        data: Path | None,
        reviews: Path | None,
        *,
        workers: int = 1,
        device: str = "cpu",
        said: Callable[[Record], object] | None = None,
    ) -> None:
        given = {"language": reviews, "sentences": data}
        self.folders = {task: folder for task, folder in given.items() if folder is not None}
        self.digests = {task: digest_of(folder) for task, folder in self.folders.items()}
        self.out, self.budget, self.workers, self.device, self.said = out, budget, workers, device, said

    def run(self, stage: Callable[[Results], object] | None = None) -> Results:
        """All stages, the sweeps last; `stage` is given what there is after each of them.

        Raises:
            ExecutionError: Nothing can be written to the folder of results, or every rate of a method diverges.
        """
        Records(self.out / "adapters.jsonl").check_writable()  # before a model is pretrained
        rates: dict[tuple[str, str], Mapping[float, float | None]] = {}
        chosen: dict[tuple[str, str], AdapterRun] = {}
        main: dict[tuple[str, str], tuple[Record, ...]] = {}
        methods = self.budget.methods
        for task in self.folders:
            for method in methods:
                rates[task, method], chosen[task, method] = self.choose_rate(task, method)
            seeds = range(self.budget.seeds)
            records = self.records([replace(chosen[task, method], seed=seed) for seed in seeds for method in methods])
            main |= {
                (task, method): tuple(record for record in records if record.settings["method"] == method)
                for method in methods
            }
            if stage is not None:
                stage(Results(rates, main, {}, {}))
        sizes = {
            (task, method, size): self.records(self._seeded(replace(chosen[task, method], size=size)))
            for task in self.folders
            for method in methods
            for size in SIZES.get(method, ())
            if self.budget.sweep
        }
        widths = {
            (method, width): self.records(
                self._seeded(replace(chosen["language", method], language=replace(self.budget.language, width=width)))
            )
            for width in (*self.budget.widths, self.budget.language.width)
            for method in methods
            if "language" in self.folders and self.budget.sweep and self.budget.widths
        }
        return Results(rates, main, sizes, widths)

    def choose_rate(self, task: str, method: str) -> tuple[Mapping[float, float | None], AdapterRun]:
        """Figures of the method's rates by dev at seed 0, and the run of the best.

        Raises:
            ExecutionError: All of them diverged.
        """
        tried = [replace(self.first(task, method), rate=rate) for rate in RATES[task][method]]
        records = self.records(tried)
        scores = {run.rate: record.measured["dev"] for run, record in zip(tried, records, strict=True)}
        if all(score is None for score in scores.values()):
            said = ", ".join(f"{rate:g}" for rate in scores)
            raise ExecutionError(
                f"{task}, {method}: every rate diverges ({said}); give a larger batch, or another model."
            )
        return scores, tried[chosen_by_dev(task, list(scores.values()))]

    def first(self, task: str, method: str) -> AdapterRun:
        """A method's run at its default size, seed 0."""
        b, size, rate = self.budget, DEFAULT_SIZE[method], RATES[task][method][0]
        data, digest = self.folders[task].resolve().name, self.digests[task]
        if task == "sentences":
            return AdapterRun(0, task, method, size, rate, b.steps, b.batch, b.evaluated, data, digest)
        budget = (b.language_steps, b.language_batch, b.language_evaluated)
        return AdapterRun(0, task, method, size, rate, *budget, data, digest, b.language)

    def records(self, runs: Sequence[AdapterRun]) -> tuple[Record, ...]:
        """Records of runs."""
        file = Records(self.out / "adapters.jsonl")
        self._pretrain([run for run in runs if file.find(run) is None])
        work = partial(measure, folders=self.folders, checkpoints=self.out / "checkpoints", device=self.device)
        return tuple(run_all(runs, work, file, workers=self.workers, threads=1, said=self.said))

    def _pretrain(self, runs: Sequence[AdapterRun]) -> None:
        """The language models of runs, each once, before several processes want them."""
        for shape in dict.fromkeys(run.language for run in runs):
            if shape is not None:
                torch.set_num_threads(1)  # as runs have, so that the weights are the same
                checkpoints = self.out / "checkpoints"
                language.pretrain(self.folders["language"], self.digests["language"], checkpoints, shape, self.device)

    def _seeded(self, run: AdapterRun) -> list[AdapterRun]:
        return [replace(run, seed=seed) for seed in range(self.budget.sweep)]


def chosen_by_dev(task: str, figures: Sequence[float | None]) -> int:
    """The place of the best: accuracy is to be large, perplexity small; None, of a run that diverged, is the worst.

    Example:
        >>> chosen_by_dev("sentences", [80.0, 81.0]), chosen_by_dev("language", [80.0, 81.0]), chosen_by_dev("language", [None, 80.0])
        (1, 0, 1)
    """
    sign = 1 if task == "sentences" else -1
    scores = [-inf if figure is None else sign * figure for figure in figures]
    return max(range(len(scores)), key=lambda place: scores[place])


def measure(run: AdapterRun, folders: Mapping[str, Path], checkpoints: Path, device: str) -> Mapping[str, Any]:
    """One run of either task; one that diverges has no figures, and "diverged" says how."""
    try:
        if run.task == "sentences":
            return sentences.measure(run, folders[run.task], device)
        return language.measure(run, folders[run.task], checkpoints, device)
    except DivergedError as error:
        return {"dev": None, "test": None, "diverged": str(error)}
