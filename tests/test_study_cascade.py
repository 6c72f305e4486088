"""The cascaded study: the real command on tiny texts, stopped and gone on with; its tables against its records."""

from __future__ import annotations

import csv
import gzip
import json
import random
import shlex
from dataclasses import asdict, fields, replace
from inspect import signature
from pathlib import Path
from statistics import fmean, median, stdev

import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn
from typer.testing import CliRunner, Result

from qcascade.cli import app
from qcascade.commands.study_cascade import cascade
from qcascade.errors import ExecutionError
from qcascade.hybrid import HybridModule
from qcascade.studies.cascade import run as run_module
from qcascade.studies.cascade.commands import commands
from qcascade.studies.cascade.encoder import Encoder, Size
from qcascade.studies.cascade.groups import settings_of
from qcascade.studies.cascade.lengths import LengthRun, step_memory
from qcascade.studies.cascade.report import make_report
from qcascade.studies.cascade.run import build, parameter_groups, train_run
from qcascade.studies.cascade.settings import Kernels, Run, options_of
from qcascade.studies.records import Record, Records
from qcascade.studies.statistics import compare
from qcascade.studies.texts import digest_of
from qcascade.studies.training import Protocol, Training
from qcascade.targets import Gate, QubitProperties, Target

SMALL = (
    "--features", "16", "--heads", "2", "--hidden", "16", "--layers", "1", "--length", "8", "--epochs", "2", "--slots", "2",
    "--qubits", "3", "--circuit-layers", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts whose label is a word's, with as many rare words as an embedding needs to be worth a circuit."""
    made, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    words = ["good", "fine", "bad", "poor"]
    for split, count in (("train", 250), ("dev", 24), ("test", 32)):
        lines = [
            " ".join([words[i % 4], *(f"w{draw.randrange(4000)}" for _ in range(7))]) + f"\t{int(i % 4 < 2)}\n"
            for i in range(count)
        ]
        (made / f"{split}.tsv").write_text("".join(lines))
    return made


def command(folder: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(
        app, ["study", "cascade", "--data", str(folder), "--out", str(out), *SMALL, *options], catch_exceptions=True
    )


@pytest.fixture(scope="module")
def results(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("out")
    done = command(folder, out, "--part", "train", "--seeds", "2", "--kind", "classical", "--kind", "hybrid")
    assert done.exit_code == 0, (done.output, done.exception)
    return out


def test_all_kinds_are_trained_and_every_step_is_written_down(results: Path) -> None:
    runs = Records(results / "runs.jsonl").all()
    order = [(r.settings["kind"], r.settings["protocol"]["seed"]) for r in runs]
    assert order == list(zip(["classical", "hybrid"] * 2, (0, 0, 1, 1), strict=True))
    assert not list((results / "checkpoints").iterdir())
    regions = {r.settings["kind"]: r.measured["regions"] for r in runs}
    assert regions == {"classical": [], "hybrid": ["layers.0.self_attn", "token"]}
    for run in runs:
        with gzip.open(results / run.measured["steps_file"], "rt") as file:
            steps = list(csv.DictReader(file))
        assert len(steps) == run.measured["steps"] == 16
        assert median(float(s["seconds"]) for s in steps[1:]) == pytest.approx(
            run.measured["step_seconds"]["median"], abs=1e-4
        )
        losses = [float(s["loss"]) for s in steps]
        assert fmean(losses[:8]) == pytest.approx(run.measured["epochs"][0]["loss"], abs=1e-3)
        assert all(int(s["memory_bytes"]) > 0 for s in steps)
        in_kernels = [0.0 < float(s["kernel_seconds"]) < float(s["seconds"]) for s in steps]
        assert not any(in_kernels) if run.settings["kind"] == "classical" else all(in_kernels)
        assert all(float(s["bytes_out"]) == 0 for s in steps)  # simulated exactly: nothing is sent


def test_evaluation_between_two_steps_is_not_time_of_the_next() -> None:
    kernel = nn.Linear(2, 2)
    watch = run_module._Watch([kernel], torch.device("cpu"))
    kernel.eval()(torch.ones(1, 2))
    assert watch.taken() == 0
    kernel.train()(torch.ones(1, 2))
    assert watch.taken() > 0


def test_a_mixer_at_rest_is_softmax_pooling(folder: Path) -> None:
    size, kernels = Size(16, 2, 16, 1, 8), Kernels(slots=2, qubits=3, circuit_layers=1, mixer_rate=0.0)
    run = Run("", digest_of(folder), "without embedding kernel", size, Protocol(epochs=1), kernels)
    hybrid = build(run, 3000, 2)
    assert isinstance(hybrid, HybridModule)
    groups = parameter_groups(hybrid, run)
    optimizer = torch.optim.AdamW([{"params": g["params"], "lr": 0.01 * g.get("scale", 1.0)} for g in groups])
    for _ in range(3):
        optimizer.zero_grad()
        hybrid(torch.randint(1, 3000, (4, 8))).square().sum().backward()
        optimizer.step()
    ((name, kernel),) = hybrid.kernels.items()
    assert kernel.angles.grad.abs().sum() > 0 and not kernel.angles.any(), name
    assert sum(len(g["params"]) for g in groups) == len(list(hybrid.parameters()))


def test_the_table_says_what_the_records_say(results: Path) -> None:
    runs = Records(results / "runs.jsonl").all()
    text = (results / "table.md").read_text()
    tests = {kind: [r.measured["test"] for r in runs if r.settings["kind"] == kind] for kind in ("classical", "hybrid")}
    lines = [[c.strip() for c in line.split("|")] for line in text.splitlines() if line.count("|") > 2]
    assert any(cells[1] == "hybrid, circuit layers 1, qubits 3, slots 2" for cells in lines)  # not as by default
    rows = {cells[1].split(",")[0]: cells for cells in lines}
    for kind, values in tests.items():
        assert rows[kind][5] == (
            f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
        )
        if kind != "classical":
            pairs = list(zip(tests["classical"], values, strict=False))
            assert rows[kind][6].startswith(f"{fmean(b - a for a, b in pairs):+.2f}")
            alike = len({b - a for a, b in pairs}) == 1
            assert rows[kind][7] == ("–" if alike else f"{ttest_rel(values, tests['classical']).pvalue:.3f}")
    assert "| the source | – | 92.3 | 91.8 | -0.5 | yes |" in text
    assert "2 epochs instead of 10" in text and "1 layers instead of 6" in text
    assert all(p.stat().st_size < 200_000 for p in results.glob("*.png")) and list(results.glob("curves-*.png"))


def test_folds_are_tested_one_a_seed(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ("--part", "train", "--kind", "classical", "--kind", "hybrid", "--folds", "3", "--epochs", "1")
    assert command(folder, tmp_path, *options, "--seeds", "3").exit_code == 0
    runs = Records(tmp_path / "runs.jsonl").all()
    assert [r.measured["texts"]["test"] for r in runs[::2]] == [102, 102, 102]  # of 250 + 24 + 32
    pairs = [[r.measured["test"] for r in runs if r.settings["kind"] == kind] for kind in ("classical", "hybrid")]
    texts = runs[0].measured["texts"]
    found = compare(pairs[0], pairs[1], overlap=texts["test"] / texts["train"])
    text = (tmp_path / "table.md").read_text()
    assert "folds 3)" in text and "3 seeds test every text once" in text and "--folds 3 --part train" in text
    assert found.low is None or f"({found.low:+.2f} … {found.high:+.2f}) | {found.t_test:.3f} | – |" in text


def test_commands_in_the_table_repeat_the_runs(folder: Path, results: Path) -> None:
    lines = [line for line in (results / "table.md").read_text().splitlines() if line.startswith("    qcascade ")]
    ends = [f"--kind {kind} --seeds 2" for kind in ("classical", "hybrid")]
    assert [line[-len(end) :] for line, end in zip(lines, ends, strict=True)] == ends
    before = (results / "runs.jsonl").read_bytes()
    for line in lines:
        given = [str(folder) if word == folder.name else word for word in shlex.split(line)[1:]]
        assert CliRunner().invoke(app, [*given, "--out", str(results)]).exit_code == 0
    assert (results / "runs.jsonl").read_bytes() == before  # all was done


def test_commands_can_say_every_setting_of_a_run() -> None:
    kernels = Kernels(4, 1, 3, 0.5, 6, 2, 0.3, 2.0)
    protocol = Protocol(2, 8, 0.001, 0.2, 0.5, 0.1)
    run = Run("texts", "0", "hybrid", Size(64, 2, 128, 3, 32), protocol, kernels, 0.3, 0.4, "shots", 32, "cuda", 5)
    (line,) = commands(settings_of([Record(asdict(run), {}, {}, {}, "", "")]))
    said = {word[2:].replace("-", "_") for word in line.split() if word.startswith("--")}
    held = {field.name for kind in (Size, Protocol, Kernels, Run) for field in fields(kind)}
    assert said - {"seeds", "part"} == held - {"seed", "digest", "size", "protocol", "kernels"}
    assert said <= set(signature(cascade).parameters)


def test_what_a_kind_has_no_use_for_names_no_row() -> None:
    assert options_of("classical") == ()
    assert {*options_of("hybrid")} == {field.name for field in fields(Kernels)}


def test_hybrids_with_other_kernels_are_rows_of_their_own_named_by_what_differs(results: Path) -> None:
    (run,) = [r for r in Records(results / "runs.jsonl").all() if r.settings["kind"] == "hybrid"][:1]
    changed = [
        {"kernels": asdict(kernels), "executor": executor, "shots": shots}
        for kernels, executor, shots in (
            (Kernels(), "statevector", None), (Kernels(local_width=3), "statevector", None), (Kernels(), "shots", 64),
        )
    ]  # fmt: skip
    (setting,) = settings_of([replace(run, settings={**run.settings, **own}) for own in changed])
    assert list(setting.kinds()) == ["hybrid", "hybrid, executor shots, shots 64", "hybrid, local width 3"]


def test_a_run_killed_in_the_middle_goes_on_to_the_same_record(
    folder: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_module.batches.accuracy
    asked = 0

    def killed(model: nn.Module, data: object) -> float:
        nonlocal asked
        asked += 1
        if asked == 2:  # after the second epoch, before it is kept
            raise KeyboardInterrupt
        return done(model, data)

    monkeypatch.setattr(run_module.batches, "accuracy", killed)
    options = ("--seeds", "1", "--part", "train", "--kind", "hybrid")
    assert command(folder, tmp_path, *options).exit_code != 0
    assert len(list((tmp_path / "checkpoints").glob("*.pt"))) == 1
    assert not Records(tmp_path / "runs.jsonl").all()
    monkeypatch.undo()
    assert command(folder, tmp_path, *options).exit_code == 0
    (again,) = Records(tmp_path / "runs.jsonl").all()
    whole = next(r for r in Records(results / "runs.jsonl").all() if r.settings == again.settings)
    for name in ("test", "train", "dev", "steps", "parameters", "regions"):
        assert again.measured[name] == whole.measured[name]
    assert [e["loss"] for e in again.measured["epochs"]] == [e["loss"] for e in whole.measured["epochs"]]
    before = (tmp_path / "runs.jsonl").read_bytes()
    assert command(folder, tmp_path, *options).exit_code == 0  # all is done: nothing is done again
    assert (tmp_path / "runs.jsonl").read_bytes() == before


def test_kinds_of_a_seed_start_from_the_same_classical_weights() -> None:
    size, protocol = Size(16, 2, 16, 1, 8), Protocol(epochs=1, seed=3)
    classical = build(Run("", "", "classical", size, protocol), 3000, 2)
    hybrid = build(
        run := Run("", "", "without attention kernel", size, protocol, Kernels(slots=2, qubits=3, circuit_layers=1)),
        3000,
        2,
    )
    assert isinstance(hybrid, HybridModule)
    assert list(hybrid.kernels) == ["token"]
    ours = hybrid.state_dict()
    shared = {name: value for name, value in classical.state_dict().items() if name in ours}
    assert {"position", "head.weight", "layers.0.self_attn.in_proj_weight"} <= set(shared)
    assert all(torch.equal(value, ours[name]) for name, value in shared.items())
    plain, angles = parameter_groups(hybrid, run)
    assert angles["scale"] == 5.0 and angles["params"][0] is hybrid.kernels["token"].angles
    assert sum(p.numel() for g in (plain, angles) for p in g["params"]) == sum(p.numel() for p in hybrid.parameters())


def test_padding_changes_nothing() -> None:
    model = Encoder(50, 2, Size(16, 2, 16, 2, 8)).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(torch.tensor([[4, 5, 0, 0]])), model(torch.tensor([[4, 5]])))


def test_circuits_by_shots_are_accounted_for(folder: Path, tmp_path: Path) -> None:
    small = Kernels(slots=1, mixer_layers=1, qubits=3, circuit_layers=1)
    size, protocol = Size(8, 1, 8, 1, 4), Protocol(epochs=1, batch=125)
    run = Run(
        folder.name, digest_of(folder), "without embedding kernel", size, protocol, small, executor="shots", shots=16
    )
    found = train_run(run, folder, tmp_path)
    assert (
        found["bytes_out"] > 0
        and found["bytes_back"] > 0
        and 0 < found["quantum_seconds"] < found["step_seconds"]["sum"]
    )


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A calibrated device of five qubits in a row."""
    single = [
        Gate(name, (q,), error, 3e-8) for q in range(5) for name, error in (("sx", 3e-4), ("x", 3e-4), ("rz", 0.0))
    ]
    double = [Gate("cz", (q, q + 1), 4e-3, 7e-8) for q in range(4)]
    target = Target("chain", "five in a row", 5, (*single, *double), (QubitProperties(0.02, 1e-6, 2e-4, 1e-4),) * 5)
    file = tmp_path / "chain.json"
    file.write_text(target.to_json())
    return file


def test_lengths_and_noise_are_measured_once(folder: Path, chain: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = (
        "--part", "lengths", "--part", "noise", "--step-length", "8", "--rounds", "1", "--step-batch", "2", "--no-step-memory",
        "--noise-texts", "2", "--noise-epochs", "1", "--target", str(chain),
    )  # fmt: skip
    done = command(folder, tmp_path, *options)
    assert done.exit_code == 0, (done.output, done.exception)
    (step,) = Records(tmp_path / "lengths.jsonl").all()
    rounds = step.measured["rounds"]
    assert step.measured["ratio"] == pytest.approx(rounds["hybrid"][0] / rounds["classical"][0])
    predicted, simulated = (r.measured for r in Records(tmp_path / "noise.jsonl").all())
    assert 0 < predicted["kernels"]["random_circuit_embedding"]["fidelity"] < 1
    assert predicted["step"]["circuits_backward"] > predicted["step"]["circuits_forward"] > 0
    for name in ("shots", "noisy"):
        assert simulated[name]["bytes_out"] > 0 and all(value > 0 for value in simulated[name]["kernels"].values())
    assert simulated["exact"]["agreement"] == 100
    text = (tmp_path / "table.md").read_text()
    assert f"{step.measured['ratio']:.2f}" in text
    assert f"{predicted['kernels']['random_circuit_embedding']['fidelity']:.3f}" in text
    others = ("--slots", "1", "--noise-texts", "3", "--part", "noise", "--part", "lengths", "--step-length", "8")
    done = command(folder, tmp_path, *options, *others)
    assert done.exit_code == 0, (done.output, done.exception)
    before = [(tmp_path / f"{name}.jsonl").read_bytes() for name in ("lengths", "noise")]
    assert [data.count(b"\n") for data in before] == [2, 4]
    text = (tmp_path / "table.md").read_text()
    assert len({line.split("|")[1] for line in text.splitlines() if line.startswith("| 16, 1")}) == 2
    assert all(f"A small hybrid under noise ({count} texts" in text for count in (2, 3))
    lines = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("    qcascade ")]
    assert len(lines) == 4
    for line in lines:
        given = [
            str(folder) if word in (folder.name, "DIR") else str(chain) if word == "chain" else word for word in line
        ]
        assert (
            CliRunner().invoke(app, [*given, "--spread", "0.3", "--out", str(tmp_path)]).exit_code == 0
        )  # of training alone
    assert [(tmp_path / f"{name}.jsonl").read_bytes() for name in ("lengths", "noise")] == before


def test_memory_of_a_step_is_its_processes_peak() -> None:
    held, peak = step_memory(LengthRun(Size(16, 2, 16, 1, 8), Kernels(), 2, vocabulary=2_000_000), "classical")
    assert peak - held > 4 * 2_000_000 * 16  # a gradient of the table, at least


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "quantum"), "choose from classical, hybrid"),
        (("--part", "everything"), "train, lengths, noise, report"),
        (("--size", "huge"), "choose from small, reference"),
        (("--device", "abacus"), "cannot be used here"),
        (("--heads", "3"), "multiple of heads"),
        (("--rate", "-1"), "the rate positive"),
        (("--part", "train", "--data", "absent"), "must hold train.tsv"),
        (("--device", "meta"), "holds no values"),
        (("--rate", "nan"), "the rate positive and finite"),
        (("--executor", "noisy"), "choose statevector or shots"),
        (("--shots", "8"), "shots are of executor 'shots'"),
        (("--target", "abacus"), "abacus"),
        (("--folds", "1"), "at least 2, or 0"),
        (("--folds", "400", "--part", "train"), "choose fewer folds"),
        (("--target", "ideal"), "no noise to simulate"),
        (("--part", "report"), "holds no results of this study"),
    ],
)
def test_bad_usage(folder: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    done = command(folder, tmp_path, *options)
    assert done.exit_code != 0
    said = done.output + str(done.exception)
    assert message in " ".join(said.replace("│", " ").split())
    assert not (tmp_path / "runs.jsonl").exists() or not Records(tmp_path / "runs.jsonl").all()  # before any training


def test_a_record_of_something_else_is_told_of(tmp_path: Path) -> None:
    Records(tmp_path / "runs.jsonl").add(Size(), {})
    with pytest.raises(ExecutionError, match="has no 'protocol', so it is not one of this study"):
        make_report(tmp_path)


def test_options_that_mean_nothing_to_a_kind_make_no_other_run(tmp_path: Path) -> None:
    records = Records(tmp_path / "runs.jsonl")
    kinds = {"without embedding kernel": Kernels(spread=0.5), "without attention kernel": Kernels(slots=2)}
    for kind, kernels in kinds.items():
        records.add(Run("texts", "0", kind, kernels=kernels), {})
        assert records.find(Run("texts", "0", kind, kernels=Kernels())) is not None
        assert records.find(Run("texts", "0", "hybrid", kernels=Kernels())) is None
    assert records.find(Run("texts", "0", "without embedding kernel", kernels=Kernels(slots=2))) is None


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ExecutionError, match="all kinds but 'classical' have kernels"):
        Run("", "", "hybrid")
    with pytest.raises(ExecutionError, match="choose one of classical"):
        Run("", "", "other")
    with pytest.raises(ExecutionError, match=r"must be in \[0, 1\)"):
        Run("", "", "classical", dropout=1.0)


def test_settings_that_differ_have_names_of_their_own() -> None:
    first = Run("texts", "0", "classical")
    others = [replace(first, dropout=0.3), replace(first, word_dropout=0.4), replace(first, size=Size(length=32))]
    changed = ({"epochs": 3}, {"rate": 1e-3}, {"batch": 8}, {"warmup": 0.2}, {"clip": 0.5}, {"decay": 0.1})
    others += [replace(first, protocol=replace(first.protocol, **one)) for one in changed]
    others += [replace(first, size=Size(heads=2)), replace(first, size=Size(hidden=256)), replace(first, digest="1")]
    others.append(replace(first, folds=4))
    found = settings_of([Record(asdict(run), {}, {}, {}, "", "") for run in (first, *others)])
    assert len({setting.name for setting in found}) == len({setting.file_name for setting in found}) == 14


def test_other_data_under_the_same_name_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="no longer holds the data"):
        train_run(Run(folder.name, "0", "classical"), folder, tmp_path)


def test_nothing_done_makes_no_table(tmp_path: Path) -> None:
    assert make_report(tmp_path) == []
    assert not (tmp_path / "table.md").exists()


def test_steps_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    steps = Training((), ()).steps
    for name in ("a", "b"):
        run_module.write_steps(tmp_path / f"{name}.csv.gz", steps)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert json.dumps(steps) == "[]"


def test_a_study_leaves_denormal_numbers_as_they_were(results: Path) -> None:
    assert float(torch.tensor(1e-40) * 1.0) > 0
