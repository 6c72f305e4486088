"""One training loop for all studies: AdamW, linear decay with warm-up, clipping; every step and every epoch written down.

What comes in: a model, where its batches and losses come from, and the protocol. What goes out: seconds and memory of every step, loss
and scores of every epoch. With a checkpoint's path, a run that was killed goes on from its last finished epoch and ends bit for
bit where the uninterrupted one does (same device and thread count).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor, nn

from qcascade.errors import ExecutionError

Batch = TypeVar("Batch")


class Diverged(ExecutionError):  # noqa: N818
    """The loss is no longer finite."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a model is trained.

    Attributes:
        rate: Peak learning rate.
        warmup: Share of all steps over which the rate rises from 0; it then falls to 0, both linearly.
        clip: Largest norm of the gradient; 0 leaves it as it is.
        decay: AdamW's weight decay.
        seed: Of torch's generator (dropout) and of the batches' order; weights are the caller's.
    """

    epochs: int = 10
    batch: int = 32
    rate: float = 5e-4
    warmup: float = 0.1
    clip: float = 1.0
    decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or self.rate <= 0 or not 0 <= self.warmup <= 1 or self.clip < 0:
            raise ExecutionError(
                f"epochs={self.epochs}, batch={self.batch}, rate={self.rate}, warmup={self.warmup}, clip={self.clip}: epochs and "
                "batch must be at least 1, the rate positive, warm-up in [0, 1], clip not negative."
            )


@dataclass(frozen=True, slots=True)
class Step:
    """One step of training."""

    seconds: float
    memory: int  # bytes: on CUDA the step's peak allocation, else the process's resident set after it
    loss: float
    extra: tuple[float, ...] = ()  # whatever `measure` gave


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training data."""

    loss: float  # mean over steps
    seconds: float  # of the steps, evaluation left out
    scores: Mapping[str, float]  # as `evaluate` gives them


@dataclass(frozen=True, slots=True)
class Training:
    """What happened; the model has been changed in place."""

    steps: tuple[Step, ...]
    epochs: tuple[Epoch, ...]

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step.seconds for step in self.steps)


def train(
    model: nn.Module,
    batches: Callable[[torch.Generator], Iterable[Batch]],
    steps_per_epoch: int,
    loss: Callable[[nn.Module, Batch], Tensor],
    protocol: Protocol,
    *,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    groups: Iterable[Mapping[str, Any]] | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    measure: Callable[[], tuple[float, ...]] = tuple,
    checkpoint: Path | None = None,
    advance: Callable[[], object] | None = None,
) -> Training:
    """Train in place.

    Args:
        model: On the device it is to be trained on.
        batches: Gives an epoch's batches, all randomness from the generator.
        steps_per_epoch: How many these are.
        loss: Of a batch.
        protocol: See there.
        evaluate: Called after every epoch; what it gives is written down (never by what a test split says is anything chosen here).
        groups: Parameter groups of AdamW; a group's "scale" multiplies its rate. By default all that require gradients.
        around: A context around every step, such as `Telemetry.step`.
        measure: Called after every step, outside its seconds; further figures of it.
        checkpoint: Where to keep the state after every epoch, and to go on from; deleted by the caller, once results are kept.
        advance: Called after every step.

    Raises:
        ExecutionError: The loss is not finite, or the checkpoint is of another run.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> x, y = torch.eye(2), torch.arange(2)
        >>> done = train(model, lambda g: [(x, y)], 1, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), Protocol(epochs=3))
        >>> len(done.steps), len(done.epochs)
        (3, 3)
    """
    optimizer = _optimizer(model, groups, protocol)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _share_of_rate(protocol, steps_per_epoch))
    torch.manual_seed(protocol.seed)
    generator = torch.Generator().manual_seed(protocol.seed)
    steps: list[Step] = []
    epochs: list[Epoch] = []
    state = _State(model, optimizer, schedule, generator)
    if checkpoint is not None and checkpoint.is_file():
        steps, epochs = state.load(checkpoint, protocol)
        for _ in steps:
            if advance is not None:
                advance()
    device = next(model.parameters()).device
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(len(epochs), protocol.epochs):
        model.train()
        first = len(steps)
        for batch in batches(generator):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            start = time.perf_counter()
            with around():
                value = loss(model, batch)
                optimizer.zero_grad()
                value.backward()
                if protocol.clip:
                    nn.utils.clip_grad_norm_(trained, protocol.clip)
                optimizer.step()
                schedule.step()
                figure = value.item()  # waits for the device
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
            steps.append(Step(time.perf_counter() - start, _memory(device), figure, measure()))
            if not figure == figure or abs(figure) == float("inf"):
                raise Diverged(f"the loss is {figure} at step {len(steps)}; lower the learning rate.")
            if advance is not None:
                advance()
        own = steps[first:]
        scores = {} if evaluate is None else dict(evaluate(model))
        epochs.append(Epoch(sum(s.loss for s in own) / max(1, len(own)), sum(s.seconds for s in own), scores))
        if checkpoint is not None:
            state.save(checkpoint, protocol, steps, epochs)
    return Training(tuple(steps), tuple(epochs))


def _optimizer(model: nn.Module, groups: Iterable[Mapping[str, Any]] | None, protocol: Protocol) -> torch.optim.AdamW:
    everything: list[Mapping[str, Any]] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    given = everything if groups is None else groups
    made = [
        {**{k: v for k, v in group.items() if k != "scale"}, "lr": protocol.rate * group.get("scale", 1.0)}
        for group in given
    ]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for group in made for p in group["params"])
    return torch.optim.AdamW(made, lr=protocol.rate, weight_decay=protocol.decay, fused=fused)


def _share_of_rate(protocol: Protocol, steps_per_epoch: int) -> Callable[[int], float]:
    total = max(1, protocol.epochs * steps_per_epoch)
    rising = max(1.0, protocol.warmup * total)
    return lambda step: (step + 1) / rising if step + 1 <= rising else max(0.0, (total - step) / (total - rising + 1))


def _memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else int(psutil.Process().memory_info().rss)


@dataclass(frozen=True, slots=True)
class _State:
    """Everything that the rest of a run depends on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator

    def save(self, file: Path, protocol: Protocol, steps: list[Step], epochs: list[Epoch]) -> None:
        """Whole or not at all."""
        held = {
            "protocol": dataclasses.asdict(protocol),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "steps": [(s.seconds, s.memory, s.loss, s.extra) for s in steps],
            "epochs": [(e.loss, e.seconds, dict(e.scores)) for e in epochs],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        torch.save(held, partial)
        partial.replace(file)

    def load(self, file: Path, protocol: Protocol) -> tuple[list[Step], list[Epoch]]:
        """Go on from there.

        Raises:
            ExecutionError: It is of another protocol or model, or damaged.
        """
        try:
            held = torch.load(file, map_location="cpu", weights_only=True)
            if held["protocol"] != dataclasses.asdict(protocol):
                raise ExecutionError(f"{file} is a checkpoint of another protocol; delete it, or give another folder.")
            self.model.load_state_dict(held["model"])
            self.optimizer.load_state_dict(held["optimizer"])
        except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
            raise ExecutionError(
                f"{file} cannot be gone on from ({error}); delete it to start that run again."
            ) from error
        self.schedule.load_state_dict(held["schedule"])
        self.generator.set_state(held["generator"])
        torch.set_rng_state(held["torch"])
        if held["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(held["cuda"])
        steps = [Step(seconds, memory, loss, tuple(extra)) for seconds, memory, loss, extra in held["steps"]]
        return steps, [Epoch(loss, seconds, scores) for loss, seconds, scores in held["epochs"]]
