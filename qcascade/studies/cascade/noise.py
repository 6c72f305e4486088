"""What a device would make of the hybrid: predicted for the protocol's step, and simulated with its noise for short texts.

Predicted, from the plan for the target at the protocol's own batch and length: of each kernel qubits, gates, depth, fidelity, circuits
and bytes of a training step, its seconds and price. Simulated: a small hybrid is trained exactly on the texts' first words and then
read on test texts exactly, by shots, and by shots under the target's noise; what comes out is accuracy, how far probabilities move, how
far every kernel's output moves, and the telemetry of the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import qcascade
from qcascade.dispatch import Telemetry
from qcascade.errors import ExecutionError, TargetError
from qcascade.hybrid import HybridModule
from qcascade.studies import batches
from qcascade.studies.cascade.encoder import Encoder, Size
from qcascade.studies.cascade.run import build, parameter_groups
from qcascade.studies.cascade.settings import Kernels, Run
from qcascade.studies.texts import Coded, check_digest, encode, read_texts
from qcascade.studies.training import Protocol, train
from qcascade.targets import get_target


@dataclass(frozen=True, slots=True)
class PredictedRun:
    """A plan of the hybrid for a target."""

    target: str
    size: Size
    kernels: Kernels
    batch: int = 32
    vocabulary: int = 30522
    part: str = "predicted"

    @staticmethod
    def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
        """A record's settings without what a plan does not depend on."""
        return (
            {**settings, "kernels": Kernels.of_one_step(settings["kernels"])} if "kernels" in settings else {**settings}
        )


@dataclass(frozen=True, slots=True)
class NoisyRun:
    """A small hybrid, read under noise.

    Attributes:
        texts: Of test, that are read; drawn by the protocol's seed.
        shots: Of every circuit.
    """

    target: str
    data: str
    digest: str
    size: Size = field(default_factory=lambda: Size(features=32, heads=2, hidden=64, layers=1, length=8))
    kernels: Kernels = field(default_factory=lambda: Kernels(slots=2, qubits=4, circuit_layers=2))
    protocol: Protocol = field(default_factory=lambda: Protocol(epochs=3, rate=2e-3))
    texts: int = 64
    shots: int = 1024
    part: str = "simulated"


def check_calibrated(target: str) -> None:
    """Refuse a target that nothing can be simulated under.

    Raises:
        TargetError: It is unknown, or has no calibration.
    """
    if not get_target(target).calibrated_gates:
        raise TargetError(
            f"target {target!r} has no calibrated gate errors, so it has no noise to simulate; choose another."
        )


def predict(run: PredictedRun) -> dict[str, Any]:
    """The plan's figures for every kernel that a region would get, and of the whole step.

    Raises:
        TargetError: The target is unknown.
        ExecutionError: A region was refused.
    """
    torch.manual_seed(0)
    model = Encoder(run.vocabulary, 2, run.size)
    example = torch.randint(1, run.vocabulary, (run.batch, run.size.length))
    options = run.kernels.options("hybrid", run.size.length)
    plan = qcascade.plan(model, example, target=run.target, kernels=options, exclude="head")
    chosen = {
        region.name: next(c for c in region.candidates if c.kernel == region.kernel)
        for region in plan.regions
        if region.kernel is not None
    }
    if len(chosen) != run.size.layers + 1:
        raise ExecutionError(f"only {', '.join(chosen) or 'none'} of the regions would be offloaded on {run.target}.")
    kernels: dict[str, dict[str, Any]] = {}
    for candidate in chosen.values():  # layers are alike: the first one's figures, and how many there are
        own = kernels.setdefault(candidate.kernel, {"regions": 0, **asdict(candidate.costs)})
        own["regions"] += 1
    costs = [candidate.costs for candidate in chosen.values()]
    return {
        "kernels": kernels,
        "step": {
            name: _total([getattr(c, name) for c in costs])
            for name in (
                "seconds_target_training",
                "bytes_to_device_training",
                "bytes_from_device_training",
                "circuits_forward",
                "circuits_backward",
                "price_training",
                "seconds_simulated_training",
            )
        },
        "price_currency": costs[0].price_currency,
        "classical_seconds": _total([plan[name].seconds_training for name in chosen]),
    }


def simulate(run: NoisyRun, folder: Path, advance: Callable[[], object] | None = None) -> dict[str, Any]:
    """Train exactly, then read exactly, by shots and under noise.

    Raises:
        TargetError: The target is unknown.
        ExecutionError: It has no calibration, or the data differ from what `run` names.
    """
    check_digest(folder, run.digest)
    words, train_set, _, test = encode(read_texts(folder), run.size.length)
    classes = int(torch.cat((train_set.labels, test.labels)).max()) + 1
    own = Run(run.data, run.digest, "hybrid", run.size, run.protocol, run.kernels, dropout=0.0, word_dropout=0.0)
    hybrid = build(own, len(words), classes, run.target)  # circuits laid along the target's chain
    assert isinstance(hybrid, HybridModule)
    train(
        hybrid,
        partial(_epoch, train_set, run.protocol.batch),
        batches.count_batches(train_set, run.protocol.batch),
        batches.classification_loss,
        run.protocol,
        groups=parameter_groups(hybrid, own),
        advance=advance,
    )
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(run.protocol.seed))[: run.texts]
    chosen = Coded(test.ids[order], test.labels[order])
    exact, outputs = _read(hybrid, chosen)
    found: dict[str, Any] = {"test_exact": batches.accuracy(hybrid, test), "exact": _scores(exact, exact, chosen)}
    for name in ("shots", "noisy"):
        hybrid.use(name, microbatches=1, shots=run.shots, seed=run.protocol.seed)
        with Telemetry(hybrid) as telemetry, telemetry.step():
            start = time.perf_counter()
            chances, moved = _read(hybrid, chosen)
            seconds = time.perf_counter() - start
        step = telemetry.steps[-1]
        found[name] = {
            **_scores(chances, exact, chosen),
            "kernels": {kernel: _distance(moved[kernel], outputs[kernel]) for kernel in outputs},
            "seconds": seconds,
            "quantum_seconds": step.quantum,
            "waiting_seconds": step.waiting,
            "circuits": step.circuits,
            "reused": step.reused,
            "shots": step.shots,
            "bytes_out": step.bytes_out,
            "bytes_back": step.bytes_back,
        }
    found["predicted_fidelity"] = {
        region.kernel: next(c.costs.fidelity for c in region.candidates if c.kernel == region.kernel)
        for region in hybrid.plan.regions
        if region.kernel is not None
    }
    return found


@torch.no_grad()
def _read(hybrid: HybridModule, data: Coded) -> tuple[Tensor, dict[str, Tensor]]:
    """Probabilities [N, c], and the first output of every kernel by its region."""
    hybrid.eval()
    with _outputs(hybrid) as outputs:
        return hybrid(data.ids).softmax(-1), outputs


@contextmanager
def _outputs(hybrid: HybridModule) -> Iterator[dict[str, Tensor]]:
    outputs: dict[str, Tensor] = {}

    def keep(name: str, kernel: nn.Module, given: Any, output: Tensor) -> None:
        outputs.setdefault(name, output)

    hooks = [kernel.register_forward_hook(partial(keep, name)) for name, kernel in hybrid.kernels.items()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _scores(chances: Tensor, exact: Tensor, data: Coded) -> dict[str, float]:
    said = chances.argmax(-1)
    return {
        "accuracy": 100 * float((said == data.labels).float().mean()),
        "agreement": 100 * float((said == exact.argmax(-1)).float().mean()),  # with the exact prediction
        "moved": fmean((chances - exact).abs().max(-1).values.tolist()),  # of the largest probability
    }


def _distance(moved: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact output about its mean."""
    spread = (exact - exact.mean()).square().mean().sqrt()
    return float((moved - exact).square().mean().sqrt() / spread)


def _epoch(data: Coded, size: int, generator: torch.Generator) -> Any:
    return batches.shuffled(data, size, generator)


def _total(values: list[Any]) -> float | None:
    return None if any(v is None for v in values) else sum(values)
