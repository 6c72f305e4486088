"""Sparse training with download and re-upload: against plain sparse training, by laws of its charges, and as a study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from qcascade.cli import app
from qcascade.cost_models.fault_tolerant import sparse_training
from qcascade.cost_models.fault_tolerant.comparison import compare_training
from qcascade.cost_models.fault_tolerant.lanczos import Spectrum
from qcascade.cost_models.fault_tolerant.logical import Problem, logical_resources
from qcascade.cost_models.fault_tolerant.pruning import masks, prune_by_magnitude, sparsity
from qcascade.cost_models.fault_tolerant.sparse_training import Method, Schedule, SparseRun, horizon, train_sparsely
from qcascade.cost_models.fault_tolerant.trajectory import worst_proxy
from qcascade.errors import ExecutionError, PlanError, QCascadeError

Batch = tuple[Tensor, Tensor]
SCHEDULE = Schedule(40, 8, prune=0.8, rate=0.2, dense=4, longest=12, probes=1, iterations=6, hessian_rows=1)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def batch_of(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 10, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 2)).double()


def trained(schedule: Schedule, method: Method, hardware: tuple[str, ...] = ()) -> tuple[nn.Module, SparseRun]:
    model = mlp()
    score = loss(model, batch_of(-1)).item()
    run = train_sparsely(
        model, loss, batch_of, [batch_of(-1)], schedule, method,
        evaluate=lambda m: loss(m, batch_of(-1)).item(), every=20, hardware=hardware,
    )  # fmt: skip
    assert run.scores[-1][0] == schedule.steps
    assert run.scores[-1][1] < score
    assert run.classical_steps + run.quantum_steps == schedule.steps
    return model, run


def test_one_exact_segment_is_plain_sparse_training() -> None:
    """With nothing wrong in the download and no end before training's, upload and download change nothing."""
    once = replace(SCHEDULE, tolerance=1e9, longest=1000, noisy=False)
    (plain, _), (uploaded, run) = trained(once, "sparse"), trained(once, "reupload")
    assert [s.steps for s in run.segments] == [32]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(uploaded.state_dict()[name], value, rtol=0, atol=0)


def test_segments_are_planned_pruned_anew_and_charged() -> None:
    pytest.importorskip("qdk.estimator")
    model, run = trained(SCHEDULE, "reupload", ("majorana",))
    assert len(run.segments) >= 3
    first, second = run.segments[:2]
    assert second.start == first.start + first.steps + SCHEDULE.dense
    assert sparsity(model).kept == first.kept == second.kept == 18 + round(0.2 * 160) + round(0.2 * 32)
    for segment in run.segments:
        assert segment.steps == 1 or segment.worst <= SCHEDULE.tolerance
        assert [c.access for c in segment.charges] == ["lookup", "qram"]
        for charge in segment.charges:
            problem = Problem(segment.kept, segment.steps, segment.row_sparsity, access=charge.access)
            assert (charge.queries, charge.t_gates) == (
                logical_resources(problem).queries,
                logical_resources(problem).t_gates,
            )
            assert charge.state_seconds is not None and charge.total_seconds is not None
            assert charge.upload_seconds is not None and 0 < charge.upload_seconds < charge.state_seconds
            assert charge.total_seconds == pytest.approx(charge.state_seconds * charge.download_copies)
    total = run.total_seconds("lookup", "majorana")
    assert total == pytest.approx(sum(s.charges[0].total_seconds or 0 for s in run.segments))


def test_classical_work_is_charged_by_torch_s_counter() -> None:
    """A step: three products of 32 × 16 × 2 and, as inputs have no gradient, two of 32 × 10 × 16; a Hessian product takes more."""
    step = 2 * 32 * (2 * 10 * 16 + 3 * 16 * 2)
    _, dense = trained(SCHEDULE, "dense")
    assert dense.classical_flops == 40 * step
    assert dense.segments == ()
    _, run = trained(SCHEDULE, "reupload")
    assert run.classical_flops > run.classical_steps * step
    assert run.classical_flops - run.classical_steps * step > len(run.segments) * SCHEDULE.iterations * 2 * step


def test_adamw_is_dense_to_the_end() -> None:
    model, run = trained(SCHEDULE, "adamw")
    assert run.classical_steps == 40 and not masks(model)


@pytest.mark.parametrize("tolerance", [1.1, 2.0, 10.0])
def test_the_horizon_is_the_last_step_within_tolerance(tolerance: float) -> None:
    density = Spectrum((np.array([-0.6, 0.1, 2.0]),), (np.array([0.1, 0.8, 0.1]),), True)
    found = horizon(density, 0.1, tolerance, 500)
    exact = max(abs(sum((1 - 0.1 * v) ** j for j in range(found))) for v in (-0.6, 0.1, 2.0)) / found
    assert worst_proxy(density, 0.1, found) == pytest.approx(exact)
    assert exact <= tolerance < worst_proxy(density, 0.1, found + 1)


def test_a_download_errs_by_what_it_says_and_only_where_weights_are() -> None:
    model = mlp()
    prune_by_magnitude(model, 0.8)
    kept = {n: v.bool() for n, v in masks(model).items()}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    sparse_training._perturb(model, 0.1, 3)
    moved = {n: p.detach() - before[n] for n, p in model.named_parameters()}
    assert all((moved[n][~k] == 0).all() for n, k in kept.items())
    norm = sum(float((p * kept[n] if n in kept else p).square().sum()) for n, p in before.items()) ** 0.5
    assert sum(float(m.square().sum()) for m in moved.values()) ** 0.5 == pytest.approx(0.1 * norm)


def test_bad_schedules_are_refused() -> None:
    with pytest.raises(PlanError, match="warm-up has to end"):
        Schedule(10, 10)
    with pytest.raises(PlanError, match="tolerance is 1"):
        Schedule(10, 1, tolerance=1.0)
    with pytest.raises(PlanError, match="rate is 0"):
        Schedule(10, 1, rate=0.0)
    with pytest.raises(PlanError, match="choose one of dense"):
        train_sparsely(mlp(), loss, batch_of, [], SCHEDULE, "magic")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="diverges"):
        train_sparsely(mlp(), lambda m, b: loss(m, b) * float("nan"), batch_of, [], SCHEDULE, "dense")


def test_the_command_compares_training(tmp_path: Path) -> None:
    pytest.importorskip("qdk.estimator")
    pytest.importorskip("matplotlib")
    source = (
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 2))\n"
    )
    (tmp_path / "made.py").write_text(source)
    x, y = batch_of(0)
    np.savez(tmp_path / "train.npz", input=x.float().numpy(), labels=y.numpy())
    line = [
        "fault-tolerant",
        f"{tmp_path}/made.py:make",
        "--data",
        str(tmp_path),
        "--at",
        "0",
        "--probes",
        "2",
        "--iterations",
        "4",
    ]
    line += ["--train", "60", "--warmup", "4", "--tolerance", "1.2", "--plots", str(tmp_path / "plots")]
    told = CliRunner().invoke(app, [*line, "--format", "json"])
    assert told.exit_code == 0, told.output
    runs = json.loads(told.stdout)["training"]["runs"]
    assert [r["method"] for r in runs] == ["dense", "sparse", "reupload"]
    assert sum(s["steps"] for s in runs[2]["segments"]) + runs[2]["classical_steps"] == 60
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"spectra.png", "proxy.png", "resources.png"}
    file = tmp_path / "outlook.html"
    page = CliRunner().invoke(app, [*line[:10], "--train", "12", "--warmup", "4", "--format", "html", "-o", str(file)])
    assert page.exit_code == 0 and not page.stdout, page.output
    for memory in ("inf", "nan", "-1"):
        with pytest.raises(PlanError, match=f"--memory is {memory}; GB"):
            CliRunner().invoke(app, [*line[:10], "--memory", memory], catch_exceptions=False)
    html = file.read_text()
    assert html.count("<figure>") == 3 and "What each segment would take" in html
    assert "https://" not in html and 'src="http' not in html  # it loads nothing
    compared = compare_training(mlp(), loss, batch_of, [batch_of(-1)], SCHEDULE)
    assert "with downloads" in str(compared) and "quantum steps" in str(compared)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentences")
    words = np.random.default_rng(0).choice(["good", "bad", "film", "plot", "a", "dull"], size=(48, 6))
    lines = [f"{' '.join(row[: 3 + i % 4])}\t{int('good' in row)}" for i, row in enumerate(words)]
    for name in ("train", "dev", "test"):
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_padding_changes_nothing_in_the_reference_encoder(sentences: Path) -> None:
    from qcascade.studies.fault_tolerant.models import load

    model, found = load("tiny", sentences, length=6, batch=4, seed=0)
    ids = found.train.ids[:4, :3]
    padded = torch.cat([ids, torch.zeros(4, 2, dtype=torch.long)], 1)
    torch.testing.assert_close(model(padded), model(ids), rtol=1e-4, atol=1e-5)
    with pytest.raises(ExecutionError, match="choose one of tiny"):
        load("giant", sentences, length=6, batch=4, seed=0)


def test_the_study_goes_on_and_writes_tables_and_plots(
    sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qdk.estimator")
    pytest.importorskip("matplotlib")
    from qcascade.studies.fault_tolerant import spectra, tables, training
    from qcascade.studies.texts import digest_of

    small = spectra.Spectra("tiny", (0, 2), 2, 1e-3, probes=2, iterations=3, batch=4, length=6)
    own = replace(small, digest=digest_of(sentences))
    monkeypatch.setattr(spectra, "RUNS", {"tiny": small})
    monkeypatch.setattr(tables, "RUNS", {"tiny": small})
    monkeypatch.setattr(training, "SCHEDULES", {"sst2": replace(SCHEDULE, steps=12, warmup=4, longest=3)})
    calls = list[int]()

    def stop() -> None:
        calls.append(1)
        if len(calls) == 8:  # in the second moment
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spectra.run_spectra(own, sentences, tmp_path, tmp_path / "state", advance=stop)
    line = ["study", "fault-tolerant", "--data", str(sentences), "--out", str(tmp_path), "--seeds", "1"]
    told = CliRunner().invoke(app, [*line, "--part", "spectra", "--part", "training", "--part", "tables"])
    assert told.exit_code == 0, told.output
    steps = [json.loads(r)["settings"]["step"] for r in (tmp_path / "moments.jsonl").read_text().splitlines()]
    assert steps == [0, 2]
    assert "of earlier settings" not in told.stdout
    assert "Hessian spectra" in told.stdout and "What the segments would take" in told.stdout
    names = ("spectra.png", "proxy.png", "resources.png", "training-sst2.png", "table.md")
    sizes = {name: (tmp_path / name).stat().st_size for name in names}
    assert all(0 < size < 200_000 for size in sizes.values()), sizes
    head, _, _ = (tmp_path / "table.md").read_text(encoding="utf-8").partition("**Hessian spectra")
    command = json.loads((tmp_path / "training.jsonl").read_text().splitlines()[0])["command"]
    assert head.startswith("# Training on a fault-tolerant") and f"Written by:\n\n    {command}" in head
    before = (tmp_path / "training.jsonl").read_text()
    assert CliRunner().invoke(app, [*line, "--part", "spectra", "--part", "training"]).exit_code == 0
    assert (tmp_path / "training.jsonl").read_text() == before
    other = tmp_path / "sentences"
    other.mkdir()
    for name in ("train", "dev", "test"):
        (other / f"{name}.tsv").write_text((sentences / f"{name}.tsv").read_text() + "other data\t1\n")
    line[3] = str(other)
    again = CliRunner().invoke(app, [*line, "--part", "spectra", "--part", "training", "--part", "tables"])
    assert again.exit_code == 0, again.output
    assert "of earlier settings" not in again.stdout
    runs = [json.loads(r) for r in (tmp_path / "training.jsonl").read_text().splitlines()]
    digests = [r["settings"]["digest"] for r in runs]
    assert digests == [digest_of(sentences)] * 5 + [digest_of(other)] * 5
    moments = [json.loads(r)["settings"] for r in (tmp_path / "moments.jsonl").read_text().splitlines()]
    assert [(m["step"], m["run"]["digest"]) for m in moments] == [
        (s, digest_of(d)) for d in (sentences, other) for s in (0, 2)
    ]
    for part in (["spectra"], ["training"]):
        line[3] = str(tmp_path / "nosuch")
        with pytest.raises(ExecutionError, match=r"nosuch/train\.tsv cannot be read"):
            CliRunner().invoke(app, [*line, "--part", *part], catch_exceptions=False)
    told = CliRunner().invoke(app, [*line, "--part", "tables"])  # reads no data
    assert told.exit_code == 0 and "Hessian spectra" in told.stdout
    with pytest.raises(ExecutionError, match="no longer holds the data"):
        spectra.run_spectra(own, other, tmp_path, tmp_path / "state")
    with pytest.raises(ExecutionError, match="no longer holds the data"):
        training.run_training(training.training_runs("sst2", 1, "another")[0], sentences)


def test_seeds_are_compared_on_the_last_data() -> None:
    from qcascade.studies.fault_tolerant.tables import _of_last_data
    from qcascade.studies.fault_tolerant.training import training_runs
    from qcascade.studies.records import Record

    records = [Record({"seed": s, "digest": d}, {}, {}, {}, "", "") for s, d in ((0, "a"), (1, "a"), (0, "b"))]
    assert _of_last_data(records) == records[2:]
    assert {run.digest for run in training_runs("digits", 1, "a")} == {""}
    assert {run.digest for run in training_runs("sst2", 1, "a")} == {"a"}


def test_without_dev_the_study_says_what_to_do(sentences: Path, tmp_path: Path) -> None:
    for name in ("train", "test"):
        lines = (sentences / f"{name}.tsv").read_text().splitlines()
        chosen = [next(line for line in lines if line.endswith(label)) for label in "01"]
        (tmp_path / f"{name}.tsv").write_text("\n".join([*chosen, chosen[0]]) + "\n")
    line = ["study", "fault-tolerant", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--part", "spectra"]
    with pytest.raises(ExecutionError, match=r"nothing for dev.*add dev\.tsv"):
        CliRunner().invoke(app, line, catch_exceptions=False)


@pytest.mark.parametrize("name", ["moments", "outlooks", "oracle", "solver", "training"])
def test_tables_of_nothing_or_of_other_records_are_one_clear_error(name: str, tmp_path: Path) -> None:
    line = ["study", "fault-tolerant", "--out", str(tmp_path), "--part", "tables"]
    with pytest.raises(ExecutionError, match="there are no records in"):
        CliRunner().invoke(app, line, catch_exceptions=False)
    record = {"settings": {}, "measured": {}, "versions": {}, "machine": {}, "command": "", "finished": ""}
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(ExecutionError, match=rf"{name}\.jsonl holds a record that is not of this study \(KeyError"):
        CliRunner().invoke(app, line, catch_exceptions=False)


def test_the_study_s_bad_options_are_refused() -> None:
    for line, message in (
        (["--part", "magic"], "--part magic is unknown"),
        (["--part", "spectra", "--model", "8m"], "--model 8m is unknown"),
        (["--part", "spectra"], "--data is missing"),
    ):
        with pytest.raises(QCascadeError, match=message):
            CliRunner().invoke(app, ["study", "fault-tolerant", *line], catch_exceptions=False)
