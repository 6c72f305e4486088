"""Telemetry: what a step is said to have taken, against the executor's own history and the clock."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import qcascade
from qcascade.dispatch.telemetry import Telemetry, line
from qcascade.errors import ExecutionError
from qcascade.executors import ShotsExecutor


class Slow(ShotsExecutor):
    """Answers after 50 ms."""

    def fetch(self, *args: object, **options: object) -> list:  # type: ignore[type-arg]
        time.sleep(0.05)
        return super().fetch(*args, **options)  # type: ignore[arg-type]


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(300, 8), nn.Linear(8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))


IDS = torch.randint(1, 20, (6, 4), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def hybrid() -> qcascade.HybridModule:
    torch.manual_seed(0)
    kernels = {
        "random_circuit_embedding": {"qubits": 2, "layers": 1},
        "reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1},
    }
    return qcascade.compile(Words(), (torch.ones(2, 4, dtype=torch.long),), kernels=kernels)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_is_what_the_executor_and_the_clock_say(
    hybrid: qcascade.HybridModule, parts: int, tmp_path: Path
) -> None:
    hybrid.use(Slow(40, seed=0), microbatches=parts)
    file = tmp_path / "steps.jsonl"
    with Telemetry(hybrid, jsonl=file) as telemetry:
        for _ in range(2):
            with telemetry.step():
                hybrid.train()(IDS).sum().backward()
                time.sleep(0.02)
    one, two = telemetry.steps
    runs = list(next(iter(hybrid.kernels.values())).executor.history)
    assert one.calls + two.calls == len(runs) == 2 * 3 * parts
    for name in ("circuits", "reused", "submissions", "bytes_out", "bytes_back"):
        assert getattr(one, name) + getattr(two, name) == sum(getattr(run, name) for run in runs)
    assert one.waiting + two.waiting == pytest.approx(sum(run.waiting for run in runs))
    for step in (one, two):
        assert step.seconds == pytest.approx(step.quantum + step.classical)
        assert step.classical >= 0.02 and step.quantum <= step.seconds
    assert one.quantum >= 0.15  # three calls one after the other, 50 ms each
    assert one.shots == 40 * (one.circuits - one.reused)
    assert two.reused == two.circuits and two.submissions == two.shots == 0  # nothing has changed: all is known
    assert two.waiting < one.waiting
    assert [json.loads(text) for text in file.read_text().splitlines()] == list(
        map(dataclasses.asdict, telemetry.steps)
    )
    hybrid.use("statevector")


def test_exact_simulation_is_all_classical(hybrid: qcascade.HybridModule) -> None:
    hybrid.use("statevector")
    telemetry = Telemetry(hybrid)
    with telemetry.step():
        hybrid(IDS)
    (step,) = telemetry.steps
    assert (step.calls, step.quantum, step.shots, step.fidelity) == (0, 0.0, 0, _least(hybrid))
    assert step.classical == step.seconds


def _least(hybrid: qcascade.HybridModule) -> float | None:
    return next(iter(c.costs.fidelity for r in hybrid.plan.regions for c in r.candidates if r.kernel == c.kernel))


def test_a_step_that_fails_is_not_counted(hybrid: qcascade.HybridModule) -> None:
    telemetry = Telemetry(hybrid)
    with pytest.raises(ZeroDivisionError), telemetry.step():
        raise ZeroDivisionError
    assert telemetry.steps == []


def test_executors_may_change_between_steps(hybrid: qcascade.HybridModule) -> None:
    telemetry = Telemetry(hybrid)
    for shots in (10, 20):
        hybrid.use("shots", shots=shots)
        with telemetry.step():
            hybrid.eval()(IDS)
    assert [step.shots // step.circuits for step in telemetry.steps] == [10, 20]
    hybrid.use("statevector")


def test_tensorboard_reads_what_was_written(hybrid: qcascade.HybridModule, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard")
    hybrid.use("shots", shots=10, microbatches=1)
    with Telemetry(hybrid, tensorboard=tmp_path) as telemetry:
        for _ in range(2):
            with telemetry.step():
                hybrid.eval()(IDS)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("qcascade/circuits")]
    assert found == [(step.number, step.circuits) for step in telemetry.steps]
    assert "qcascade/classical" in events.Tags()["scalars"] and "qcascade/number" not in events.Tags()["scalars"]
    hybrid.use("statevector")


def test_without_tensorboard_the_error_says_what_to_install(
    hybrid: qcascade.HybridModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ExecutionError, match=r"pip install 'qcascade\[telemetry\]'"):
        Telemetry(hybrid, tensorboard=tmp_path)


def test_the_live_line(
    hybrid: qcascade.HybridModule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    hybrid.use("statevector")
    with Telemetry(hybrid, live=True) as telemetry, telemetry.step():
        hybrid(IDS)
    assert "step 1:" in line(telemetry.steps[0])
    assert "step 1:" in capsys.readouterr().err
