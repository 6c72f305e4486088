"""Telemetry: what a step is said to have taken, against the executor's own history and the clock."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from faults.cloud import Cloud, CloudAer, Faults
from small import EMBEDDING_AND_HEAD, Words
from torch.utils.data import DataLoader, Dataset

import qcascade
from qcascade import Policy
from qcascade.dispatch.telemetry import Telemetry, line
from qcascade.errors import ExecutionError
from qcascade.executors import NoisyExecutor, PytketExecutor, ReadoutInversion, ShotsExecutor


class Slow(ShotsExecutor):
    """Answers after 50 ms."""

    def fetch(self, *args: object, **options: object) -> list:  # type: ignore[type-arg]
        time.sleep(0.05)
        return super().fetch(*args, **options)  # type: ignore[arg-type]


IDS = torch.randint(1, 20, (6, 4), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def hybrid() -> qcascade.HybridModule:
    torch.manual_seed(0)
    return qcascade.compile(Words(), (torch.ones(2, 4, dtype=torch.long),), kernels=EMBEDDING_AND_HEAD)


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
    assert one.calls + two.calls == len(runs) == 2 * 3 * (1 if parts == 1 else 2 * parts)  # gradients apart
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
    written = [dataclasses.asdict(step) | {"switches": []} for step in telemetry.steps]
    assert [json.loads(text) for text in file.read_text().splitlines()] == written
    hybrid.use("statevector")


def test_exact_simulation_is_all_classical(hybrid: qcascade.HybridModule) -> None:
    hybrid.use("statevector")
    telemetry = Telemetry(hybrid)
    with telemetry.step():
        hybrid(IDS)
    (step,) = telemetry.steps
    assert (step.calls, step.quantum, step.shots, step.fidelity) == (0, 0.0, 0, None)
    assert step.classical == step.seconds


def test_fidelity_is_that_of_the_target_and_what_was_simulated_instead_is_shown(tmp_path: Path) -> None:
    kernels = {"reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1}}
    made = qcascade.compile(Words(), (IDS[:2],), kernels=kernels, include="head", target="ibm_manila")
    (least,) = [c.costs.fidelity for r in made.plan.regions for c in r.candidates if c.kernel == r.kernel is not None]
    telemetry = Telemetry(made)
    made.eval()
    refusing = Cloud(tmp_path / "cloud.sqlite", Faults(refused=1.0))
    instead = PytketExecutor(CloudAer(refusing), 10, target="ibm_manila", compile_seeds=1)
    for executor, options in (
        ("noisy", {"shots": 10, "compile_seeds": 1}),
        ("shots", {}),
        (instead, {"policy": Policy(fallback="simulate", retries=0)}),
    ):
        made.use(executor, **options)  # type: ignore[arg-type]
        with telemetry.step(), torch.no_grad():
            made(IDS[:2])
    noisy, shots, simulated = telemetry.steps
    assert least is not None and noisy.fidelity == least and f"fidelity {least:.3f}" in line(noisy)
    assert shots.fidelity is None and "fidelity" not in line(shots)
    assert simulated.simulated == simulated.circuits > 0 and simulated.fidelity is None
    assert f"{simulated.simulated} simulated instead" in line(simulated)


def test_what_is_asked_twice_and_simulated_once_is_simulated_throughout(tmp_path: Path) -> None:
    kernels = {"reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1}}
    made = qcascade.compile(Words(), (IDS[:2],), kernels=kernels, include="head", target="ibm_manila").eval()
    refusing = Cloud(tmp_path / "cloud.sqlite", Faults(refused=1.0))
    instead = PytketExecutor(CloudAer(refusing), 10, target="ibm_manila", compile_seeds=1)
    made.use(instead, policy=Policy(fallback="simulate", retries=0))
    telemetry = Telemetry(made)
    with telemetry.step(), torch.no_grad():
        made(IDS[[0, 0, 0]])
    (step,) = telemetry.steps
    assert step.reused > 0 and step.simulated == step.circuits > 0 and step.fidelity is None


def test_shots_are_those_that_were_taken(tmp_path: Path) -> None:
    kernels = {"reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1}}
    made = qcascade.compile(Words(), (IDS[:2],), kernels=kernels, include="head", target="ibm_manila")
    telemetry = Telemetry(made)
    for journal in (None, tmp_path / "j.sqlite"):
        readout = ReadoutInversion(calibration_shots=20_000)
        made.use(NoisyExecutor("ibm_manila", 50, seed=0, mitigation=[readout], compile_seeds=1), journal=journal)
        with telemetry.step(), torch.no_grad():
            made(IDS)
    for step in telemetry.steps:
        assert step.shots == 50 * (step.circuits - step.reused - 2) + 2 * 20_000
    backend = CloudAer(Cloud(tmp_path / "cloud.sqlite", Faults(truncated=1.0)))
    made.use(PytketExecutor(backend, 50), policy=Policy(deadline=20.0))
    with telemetry.step(), torch.no_grad():
        made(IDS)
    assert telemetry.steps[-1].shots == 25 * (telemetry.steps[-1].circuits - telemetry.steps[-1].reused)


class Rows(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"ids": IDS[index % 6], "labels": torch.tensor(index % 2)}


def test_under_trainer(hybrid: qcascade.HybridModule, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = copy.deepcopy(hybrid).use("shots", shots=10, seed=0, microbatches=1)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        report_to=[], disable_tqdm=True, use_cpu=True, save_strategy="no", label_names=["labels"],
    )  # fmt: skip
    with Telemetry(model, jsonl=tmp_path / "steps.jsonl") as telemetry:
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=Rows(), callbacks=[telemetry.trainer_callback()],
            compute_loss_func=lambda logits, labels, **_: torch.nn.functional.cross_entropy(logits, labels),
        )  # fmt: skip
        trainer.train()
    assert len(telemetry.steps) == len((tmp_path / "steps.jsonl").read_text().splitlines()) == 2
    executor = next(iter(model.kernels.values())).executor
    assert (
        sum(step.calls for step in telemetry.steps) == executor.runs == 2 * 2 * 3
    )  # two batches a step, three calls each
    assert sum(step.circuits for step in telemetry.steps) == sum(run.circuits for run in executor.history)


def test_under_lightning(hybrid: qcascade.HybridModule, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Lit(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.hybrid = copy.deepcopy(hybrid).use("shots", shots=10, seed=0)

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.hybrid(batch["ids"]), batch["labels"])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    lit = Lit()
    telemetry = Telemetry(lit.hybrid)
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[telemetry.lightning_callback()],
    )  # fmt: skip
    trainer.fit(lit, DataLoader(Rows(), 2))
    assert len(telemetry.steps) == 2 and all(step.calls == 6 for step in telemetry.steps)


def test_callbacks_say_what_to_install(hybrid: qcascade.HybridModule, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = qcascade.Telemetry(hybrid)
    for name, method in (("transformers", "trainer_callback"), ("lightning.pytorch.callbacks", "lightning_callback")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ExecutionError, match=f"{method}.*needs.*pip install"):
            getattr(telemetry, method)()
    with pytest.raises(ExecutionError, match="no step has begun"):
        telemetry.end()


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
