"""What every step of a training loop took: seconds by kind, bytes, circuits, shots, results known before, fidelity.

What comes in: a hybrid on any executor, and the steps, marked by `with telemetry.step():` or by a callback of Hugging Face's Trainer
or Lightning (`trainer_callback`, `lightning_callback`). What goes out: a `Step` for each, as a Python object, a line of JSON,
TensorBoard scalars ("qcascade/…") and a line on the terminal that is kept up to date. Calls of an executor are read from its history.
With the exact simulator there are none: a step is then all classical, unless it is a place of `Dynamic`, whose calls are timed.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from qcascade.dispatch.choice import Switch
from qcascade.errors import ExecutionError
from qcascade.executors.base import Executor, Run
from qcascade.plan import PartitionPlan


class _Kernel(Protocol):
    @property
    def executor(self) -> Executor | None: ...


class _Hybrid(Protocol):
    @property
    def kernels(self) -> Mapping[str, Any]: ...  # of `_Kernel`s

    @property
    def plan(self) -> PartitionPlan: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step. Micro-batches run at the same time: `waiting` is summed over them and may come to more than `seconds`."""

    number: int  # from 1
    seconds: float  # quantum + classical
    quantum: float  # seconds in which at least one call of an executor was under way
    classical: float  # seconds in which none was
    waiting: float  # seconds that calls did nothing but wait, summed
    calls: int
    submissions: int
    circuits: int
    reused: int  # circuits whose result was there already
    simulated: int  # circuits simulated in the device's place
    shots: int  # taken by all circuits that were run, calibrations included; 0 where values are exact
    bytes_out: int
    bytes_back: int
    standard_error: float  # largest of a call
    fidelity: (
        float | None
    )  # predicted, of the least faithful circuit that ran on the plan's target; None: none, or not known
    switches: tuple[Switch, ...] = ()  # changes of place (`Dynamic`)


class Telemetry:
    """Steps of a hybrid, written down as they end.

    Args:
        hybrid: What `qcascade.compile` gave; `use` may be called between steps.
        jsonl: A file that a line is added to for every step.
        tensorboard: A folder for TensorBoard's events.
        live: Whether a line of the terminal shows the last step (rich).

    Attributes:
        steps: All steps so far.

    Raises:
        ExecutionError: tensorboard was asked for and is not installed.

    Example:
        >>> import torch, qcascade
        >>> model = torch.nn.Sequential(torch.nn.Embedding(300, 8), torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> hybrid = qcascade.compile(model, (torch.ones(2, 2, dtype=torch.long),))
        >>> with Telemetry(hybrid) as telemetry, telemetry.step():
        ...     hybrid(torch.ones(2, 2, dtype=torch.long)).sum().backward()
        >>> telemetry.steps[0].calls
        0
    """

    def __init__(
        self,
        hybrid: _Hybrid,
        *,
        jsonl: str | Path | None = None,
        tensorboard: str | Path | None = None,
        live: bool = False,
    ) -> None:
        self.hybrid, self.steps = hybrid, list[Step]()
        self._open = ExitStack()
        self._begun: tuple[float, dict[int, int], int] | None = None
        self._lines: IO[str] | None = None
        self._board = None if tensorboard is None else _board(tensorboard)
        if self._board is not None:
            self._open.callback(self._board.close)
        if jsonl is not None:
            self._lines = self._open.enter_context(Path(jsonl).open("a", encoding="utf-8"))  # noqa: SIM115 - the stack closes it
        self._status = self._open.enter_context(_status()) if live else None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Everything that belongs to one step; one that raises is not counted.

        Raises:
            ExecutionError: More calls were made in the step than an executor remembers.
        """
        self.begin()
        yield
        self.end()

    def begin(self) -> None:
        """A step begins; another that was begun and did not end is not counted."""
        first = {id(executor.history): executor.runs for executor in self._executors()}
        self._begun = time.perf_counter(), first, len(_switches(self.hybrid))

    def end(self) -> None:
        """The step that was begun ends.

        Raises:
            ExecutionError: None was begun, or more calls were made in it than an executor remembers.
        """
        if self._begun is None:
            raise ExecutionError("Telemetry.end() without begin(): no step has begun.")
        start, first, before = self._begun
        self._begun = None
        seconds = time.perf_counter() - start
        runs: list[Run] = []
        for executor in self._executors():
            count = executor.runs - first.get(id(executor.history), 0)
            if count > len(executor.history):
                raise ExecutionError(
                    f"a step of {count} calls; {len(executor.history)} are remembered. Mark shorter steps."
                )
            runs += list(executor.history)[len(executor.history) - count :]
        switches = _switches(self.hybrid)
        step = _step(len(self.steps) + 1, start, seconds, runs, _fidelity(self.hybrid.plan, runs))
        self._written(dataclasses.replace(step, switches=switches[before if len(switches) >= before else 0 :]))

    def trainer_callback(self) -> Any:
        """A `transformers.TrainerCallback`: every step of the optimizer is a step.

        Raises:
            ExecutionError: transformers is not installed.
        """
        from qcascade.dispatch.callbacks import trainer_callback

        return trainer_callback(self)

    def lightning_callback(self) -> Any:
        """A Lightning `Callback`: every training batch is a step.

        Raises:
            ExecutionError: Lightning is not installed.
        """
        from qcascade.dispatch.callbacks import lightning_callback

        return lightning_callback(self)

    def close(self) -> None:
        """Close the files; the steps stay."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _executors(self) -> list[Executor]:
        kernels: Sequence[_Kernel] = list(self.hybrid.kernels.values())
        found = {id(kernel.executor.history): kernel.executor for kernel in kernels if kernel.executor is not None}
        return list(found.values())

    def _written(self, step: Step) -> None:
        self.steps.append(step)
        values = dataclasses.asdict(step)
        if self._lines is not None:
            self._lines.write(json.dumps(values) + "\n")
            self._lines.flush()
        if self._board is not None:
            for name, value in {**values, "switches": len(step.switches)}.items():
                if name != "number" and value is not None:
                    self._board.add_scalar(f"qcascade/{name}", value, step.number)
            self._board.flush()
        if self._status is not None:
            self._status.update(line(step))


def line(step: Step) -> str:
    """A step in one line.

    Example:
        >>> line(Step(3, 1.5, 1.0, 0.5, 0.9, 2, 1, 100, 40, 0, 6000, 2000, 500, 0.1, None))
        'step 3: 1.50 s (0.50 classical, 1.00 quantum, 0.90 waiting), 100 circuits (40 known), 6000 shots, 2.5 kB'
    """
    known = f" ({step.reused} known)" if step.reused else ""
    parts = [
        f"step {step.number}: {step.seconds:.2f} s ({step.classical:.2f} classical, {step.quantum:.2f} quantum, "
        f"{step.waiting:.2f} waiting)",
        f"{step.circuits} circuits{known}",
        f"{step.shots} shots",
        f"{(step.bytes_out + step.bytes_back) / 1000:.1f} kB",
    ]
    if step.simulated:
        parts.append(f"{step.simulated} simulated instead")
    if step.fidelity is not None:
        parts.append(f"fidelity {step.fidelity:.3f}")
    parts += [f"{switch.kernel} → {switch.after}" for switch in step.switches]
    return ", ".join(parts)


def _step(number: int, start: float, seconds: float, runs: Sequence[Run], fidelity: float | None) -> Step:
    quantum, reached = 0.0, start
    for run in sorted(runs, key=lambda run: run.started):
        end = min(run.started + run.seconds, start + seconds)
        quantum += max(0.0, end - max(reached, run.started))
        reached = max(reached, end)
    return Step(
        number=number,
        seconds=seconds,
        quantum=quantum,
        classical=seconds - quantum,
        waiting=sum(run.waiting for run in runs),
        calls=len(runs),
        submissions=sum(run.submissions for run in runs),
        circuits=sum(run.circuits for run in runs),
        reused=sum(run.reused for run in runs),
        simulated=sum(run.simulated for run in runs),
        shots=sum(run.shots_taken for run in runs),
        bytes_out=sum(run.bytes_out for run in runs),
        bytes_back=sum(run.bytes_back for run in runs),
        standard_error=max((run.standard_error for run in runs), default=0.0),
        fidelity=fidelity,
    )


def _fidelity(plan: PartitionPlan, runs: Sequence[Run]) -> float | None:
    """The least of kernels that ran on the plan's target; of all kernels where runs do not name theirs."""
    there = [run for run in runs if run.target == plan.target and run.circuits > run.simulated]
    named = {run.kernel for run in there}
    chosen = [
        candidate.costs.fidelity
        for region in plan.regions
        if region.kernel is not None and (None in named or region.name in named)
        for candidate in region.candidates
        if candidate.kernel == region.kernel
    ]
    known = [fidelity for fidelity in chosen if fidelity is not None]
    return min(known) if there and known and len(known) == len(chosen) else None


def _switches(hybrid: _Hybrid) -> tuple[Switch, ...]:
    found: tuple[Switch, ...] = getattr(hybrid, "switches", ())
    return found


def _board(folder: str | Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ExecutionError(
            f"tensorboard={str(folder)!r} needs the tensorboard package: pip install 'qcascade[telemetry]', or leave it out."
        ) from error
    return SummaryWriter(str(folder))


def _status() -> Any:
    from rich.console import Console

    return Console(stderr=True).status("the first step is under way")
