"""Train one model of the study and measure it: settings in, figures of every epoch and a summary of the steps out.

Written beside, a gzipped CSV named by the run: every step's seconds, memory, loss, seconds in kernels, and, where circuits are run by an
executor, quantum seconds, waiting and bytes (`Telemetry`). The head stays classical in every kind: the re-uploading head learns far
slower than the rest.
"""

from __future__ import annotations

import csv
import gzip
import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import qcascade
from qcascade.dispatch import Telemetry
from qcascade.errors import ExecutionError
from qcascade.hybrid import HybridModule
from qcascade.kernels import AmplitudeAttentionPooling, RandomCircuitEmbedding
from qcascade.studies import batches
from qcascade.studies.cascade.encoder import Encoder
from qcascade.studies.cascade.settings import ATTENTION, EMBEDDING, KINDS, Run
from qcascade.studies.devices import checked_device
from qcascade.studies.folds import split_by_fold
from qcascade.studies.records import key_of
from qcascade.studies.texts import Coded, check_digest, encode, read_texts
from qcascade.studies.training import Step, Training, train

COLUMNS = (
    "seconds",
    "memory_bytes",
    "loss",
    "kernel_seconds",
    "quantum_seconds",
    "waiting_seconds",
    "bytes_out",
    "bytes_back",
)
_EXAMPLE = (2, 16)  # what a model is captured with; batch and length are free


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Adam's averages of rare words decay into denormal numbers, which are many times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@_denormals_flushed()
def train_run(
    run: Run, folder: Path, out: Path, device: str = "cpu", advance: Callable[[], object] | None = None
) -> dict[str, Any]:
    """Train as `run` says.

    Args:
        run: See there.
        folder: The data.
        out: Where checkpoints and steps are kept.
        device: torch's name of it, of the type that the run names.
        advance: Called after every step.

    Returns:
        What was measured; accuracies in per cent, of the last epoch, so that nothing is chosen.

    Raises:
        ExecutionError: The data differ from what `run` names, or there is no such device.
    """
    if checked_device(device).type != run.device:
        raise ExecutionError(f"device={device!r} is not of the type {run.device!r} that the run names.")
    check_digest(folder, run.digest)
    texts = read_texts(folder)
    if run.folds:
        texts = split_by_fold(texts, run.folds, run.protocol.seed)
    words, train_set, dev, test = encode(texts, run.size.length)
    classes = int(torch.cat((train_set.labels, dev.labels, test.labels)).max()) + 1
    model = build(run, len(words), classes).to(checked_device(device))
    kernels = list(model.kernels.values()) if isinstance(model, HybridModule) else []
    watch = _Watch(kernels, torch.device(device))
    telemetry = Telemetry(model) if isinstance(model, HybridModule) and run.executor != "statevector" else None
    checkpoint = out / "checkpoints" / f"{key_of(run)}.pt"
    start = time.perf_counter()
    done = train(
        model,
        partial(_epoch, train_set, run),
        batches.count_batches(train_set, run.protocol.batch),
        batches.classification_loss,
        run.protocol,
        evaluate=lambda m: {"dev": batches.accuracy(m, dev)} if len(dev) else {},
        groups=parameter_groups(model, run),
        around=nullcontext if telemetry is None else telemetry.step,
        measure=lambda: (watch.taken(), *_executed(telemetry)),
        checkpoint=checkpoint,
        advance=advance,
    )
    name = f"{run.data}-{run.kind.replace(' ', '-')}-{run.protocol.seed}-{key_of(run)}.csv.gz"
    write_steps(out / "steps" / name, done.steps)
    found = {
        **summary(done),
        "test": batches.accuracy(model, test),
        "train": batches.accuracy(model, train_set),
        "texts": {"train": len(train_set), "dev": len(dev), "test": len(test), "words": len(words)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "regions": sorted(model.kernels) if isinstance(model, HybridModule) else [],
        "whole_seconds": round(
            time.perf_counter() - start, 1
        ),  # of this process: less than the steps' sum where it went on
        "device": device,
        "steps_file": f"steps/{name}",
    }
    checkpoint.unlink(missing_ok=True)
    return found


def build(run: Run, vocabulary: int, classes: int, target: str = "ideal") -> nn.Module:
    """The encoder or its hybrid, from the run's seed; kinds of one seed share every classical starting weight.

    Raises:
        ExecutionError: A region was refused.
        TargetError: The target is unknown.
    """
    torch.manual_seed(run.protocol.seed)
    model = Encoder(vocabulary, classes, run.size, run.dropout)
    if run.kernels is None:
        return model
    rows, length = _EXAMPLE
    example = torch.ones(rows, min(length, run.size.length), dtype=torch.long)
    options = run.kernels.options(run.kind, run.size.length)
    hybrid = qcascade.compile(model, example, target=target, kernels=options, exclude="head", seed=run.protocol.seed)
    own = KINDS[run.kind]
    wanted = run.size.layers * (ATTENTION in own) + (EMBEDDING in own)
    if len(hybrid.kernels) != wanted:
        kept = "; ".join(f"{r.name}: {r.reason}" for r in hybrid.plan.regions if r.kernel is None)
        raise ExecutionError(f"{wanted} regions should have become kernels, {len(hybrid.kernels)} did ({kept}).")
    for kernel in hybrid.kernels.values():  # what they replaced was not trained, so that there is nothing to start from
        if isinstance(kernel, RandomCircuitEmbedding):
            kernel.reset_parameters(run.protocol.seed)
    if run.executor != "statevector":
        hybrid.use(run.executor, microbatches=1, shots=run.shots, seed=run.protocol.seed)
    return hybrid


def parameter_groups(model: nn.Module, run: Run) -> list[dict[str, Any]]:
    """Circuits' angles at rates of their own; the embedding's are not pulled towards 0, which means nothing to them."""
    groups = list[dict[str, Any]]()
    if run.kernels is not None and isinstance(model, HybridModule):
        kernels = model.kernels.values()
        tokens = [kernel.angles for kernel in kernels if isinstance(kernel, RandomCircuitEmbedding)]
        mixers = [kernel.angles for kernel in kernels if isinstance(kernel, AmplitudeAttentionPooling)]
        if tokens:
            groups.append({"params": tokens, "scale": run.kernels.angle_rate, "weight_decay": 0.0})
        if mixers and run.kernels.mixer_rate != 1:
            groups.append({"params": mixers, "scale": run.kernels.mixer_rate})
    own = {id(p) for group in groups for p in group["params"]}
    return [{"params": [p for p in model.parameters() if id(p) not in own]}, *groups]


def summary(done: Training) -> dict[str, Any]:
    """Of all steps but the first, which also compiles."""
    steps = done.steps[1:] or done.steps
    seconds = [step.seconds for step in steps]
    return {
        "epochs": [
            {"loss": round(e.loss, 4), "seconds": round(e.seconds, 2), **{k: round(v, 3) for k, v in e.scores.items()}}
            for e in done.epochs
        ],
        "dev": done.epochs[-1].scores.get("dev"),
        "steps": len(done.steps),
        "step_seconds": {"median": median(seconds), "mean": sum(seconds) / len(seconds), "sum": done.seconds},
        "kernel_seconds": median(step.extra[0] for step in steps),
        "quantum_seconds": median(step.extra[1] for step in steps),
        "waiting_seconds": median(step.extra[2] for step in steps),
        "bytes_out": median(step.extra[3] for step in steps),
        "bytes_back": median(step.extra[4] for step in steps),
        "peak_memory_bytes": max(step.memory for step in done.steps),
    }


def write_steps(file: Path, steps: Sequence[Step]) -> None:
    """A gzipped CSV, a line a step; the same steps give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((f"{s.seconds:.4f}", s.memory, f"{s.loss:.5g}", *(f"{v:.4g}" for v in s.extra)) for s in steps)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def _epoch(data: Coded, run: Run, generator: torch.Generator) -> Any:
    return batches.shuffled(data, run.protocol.batch, generator, run.word_dropout)


def _executed(telemetry: Telemetry | None) -> tuple[float, ...]:
    """Quantum seconds, waiting, bytes out and back of the last step; exact simulation sends nothing to anything."""
    if telemetry is None:
        return 0.0, 0.0, 0.0, 0.0
    last = telemetry.steps[-1]
    return last.quantum, last.waiting, float(last.bytes_out), float(last.bytes_back)


class _Watch:
    """Seconds that kernels' forward passes take in training; evaluation between two steps belongs to neither."""

    def __init__(self, kernels: Sequence[nn.Module], device: torch.device) -> None:
        self._seconds, self._start, self._device = 0.0, 0.0, device
        for kernel in kernels:
            kernel.register_forward_pre_hook(self._begin)
            kernel.register_forward_hook(self._end)

    def taken(self) -> float:
        """Since it was last asked."""
        taken, self._seconds = self._seconds, 0.0
        return taken

    def _begin(self, *_: Any) -> None:
        self._start = self._now()

    def _end(self, kernel: nn.Module, *_: Any) -> None:
        if kernel.training:
            self._seconds += self._now() - self._start

    def _now(self) -> float:
        if self._device.type == "cuda":  # what was launched before counts where it belongs
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
