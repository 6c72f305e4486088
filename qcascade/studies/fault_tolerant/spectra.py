"""Spectra through training of one model: a record for every moment as it is measured, and one for what quantum training would take.

A moment's record also says how much the model has learned by then: its accuracy on dev.

Out, in the folder OUT: moments.jsonl and outlooks.jsonl (`records`); in STATE the checkpoint that a killed run goes on from.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from qcascade.cost_models.fault_tolerant.report import classical_step, outlooks, plain
from qcascade.cost_models.fault_tolerant.trajectory import Moment, Settings, follow
from qcascade.studies.batches import accuracy
from qcascade.studies.fault_tolerant.models import load, loss
from qcascade.studies.records import Records, key_of
from qcascade.studies.texts import check_digest


@dataclass(frozen=True, slots=True)
class Spectra:
    """A model's run; its data's digest is in `digest`, so that other data are another run."""

    model: str
    moments: tuple[int, ...]
    warmup: int
    adamw_rate: float
    rate: float = 0.01
    optimizer: Literal["sgd", "adamw"] = "adamw"
    prune: float = 0.9
    probes: int = 2
    iterations: int = 20
    third_rounds: int = 1
    hessian_rows: int = 1
    batch: int = 16
    measured: int = 1
    length: int = 24
    seed: int = 0
    digest: str = ""

    def settings(self) -> Settings:
        """As the trajectory wants them."""
        return Settings(
            self.moments, self.rate, self.prune, self.probes, self.iterations, self.third_rounds, self.hessian_rows,
            seed=self.seed, warmup=self.warmup, optimizer=self.optimizer, adamw_rate=self.adamw_rate,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AtMoment:
    """A moment of a run, the key of its record."""

    run: Spectra
    step: int


RUNS = {
    "small": Spectra("small", (0, 50, 200), 200, 1e-3, probes=4, iterations=48),
    "7m": Spectra("7m", (0, 50, 200), 200, 5e-4, probes=4, iterations=20, batch=32, measured=2, length=16),
    "minilm": Spectra("minilm", (0, 100, 300), 50, 5e-4, probes=4, iterations=16, batch=32, measured=2, length=16),
    "22m": Spectra("22m", (0, 50, 150), 150, 3e-4, probes=4, iterations=16, batch=32, measured=2, length=16),
    "103m": Spectra("103m", (0, 5, 15), 10, 2e-4, iterations=12, batch=8, length=16),
    "121m": Spectra("121m", (0, 20, 60), 30, 3e-4, iterations=12, length=16),
}


def run_spectra(
    run: Spectra,
    data: Path,
    out: Path,
    state: Path,
    *,
    steps: int = 1000,
    advance: Callable[[], object] | None = None,
    said: Callable[[str], object] = print,
) -> None:
    """Do what is not done.

    Args:
        run: Which.
        data: Folder of train.tsv, dev.tsv and test.tsv.
        out: Folder of the records.
        state: Folder of the checkpoint; its weights are not small.
        steps: T of the outlook.
        advance: Called after every Hessian-vector product of the quadrature.
        said: Called with a line for every moment.

    Raises:
        ExecutionError: The data cannot be read, or differ from what `run` names.
    """
    check_digest(data, run.digest)
    moments, told = Records(out / "moments.jsonl"), Records(out / "outlooks.jsonl")
    if told.find(run) is not None:
        return
    state.mkdir(parents=True, exist_ok=True)
    model, sentences = load(run.model, data, length=run.length, batch=run.batch, seed=run.seed)
    began = time.perf_counter()

    def keep(moment: Moment) -> None:
        nonlocal began
        seconds, began = time.perf_counter() - began, time.perf_counter()
        learned = accuracy(model, sentences.dev)
        measured = {"moment": asdict(moment), "dev": learned, "seconds": seconds, "peak_bytes": peak_bytes()}
        moments.add(AtMoment(run, moment.step), plain(measured))
        said(
            f"{run.model}: step {moment.step}, loss {moment.loss:.4f}, dev {learned:.1f} %, "
            f"λ {moment.smallest:.3g} … {moment.largest:.3g}"
        )

    file = state / f"{run.model}-{key_of(run)}.pt"
    found = follow(
        model, loss, sentences.batch_of, sentences.measured(run.measured), run.settings(),
        file=file, advance=advance, on_moment=keep,
    )  # fmt: skip
    step, predicted = classical_step(model, loss, sentences.batch_of(0))
    sparse = max(m.row_largest for m in found.moments)
    estimated = outlooks(found.sparsity, sparse, step, steps=steps)
    told.add(
        run,
        plain({
            "sparsity": asdict(found.sparsity),
            "step": asdict(step),
            "predicted_step_seconds": predicted,
            "outlooks": [asdict(o) for o in estimated],
            "peak_bytes": peak_bytes(),
        }),
    )  # fmt: skip


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
