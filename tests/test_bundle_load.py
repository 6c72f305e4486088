"""A loaded bundle computes what the hybrid computes, wherever its kernels run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import small_hybrid, write_small
from pytket.extensions.qiskit import AerBackend
from typer.testing import CliRunner

import qcascade
from qcascade.bundle.bundle import Bundle, load
from qcascade.bundle.drawing import draw, read_circuit
from qcascade.cli import app
from qcascade.errors import BundleError, ExecutionError
from qcascade.executors import PytketExecutor, ShotsExecutor
from qcascade.executors.noise import noise_model
from qcascade.hybrid import HybridModule
from qcascade.kernels import AmplitudeAdapter
from qcascade.targets.target import Gate, QubitProperties, Target

X = torch.linspace(-1, 1, 24).reshape(4, 6)


@pytest.fixture(scope="module")
def hybrid() -> HybridModule:
    return small_hybrid()


@pytest.fixture(scope="module")
def folder(hybrid: HybridModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bundles")
    write_small(made / "small.qcb", hybrid)
    write_small(made / "small", hybrid)
    write_small(made / "needy.qcb", hybrid, without_body=("2",))
    return made


@pytest.fixture(scope="module")
def expected(hybrid: HybridModule) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = hybrid(X)
    return found


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return load(folder / "small.qcb", threads=1)


@pytest.mark.parametrize("name", ["small.qcb", "small"])
def test_a_bundle_is_its_hybrid(folder: Path, name: str, expected: torch.Tensor, hybrid: HybridModule) -> None:
    bundle = load(folder / name)
    found = bundle(x=X)
    assert list(found) == ["y"]
    torch.testing.assert_close(found["y"], expected, atol=1e-5, rtol=0)
    assert bundle.plan == hybrid.plan
    assert bundle.target == hybrid._state.target
    assert list(bundle.kernels) == ["0", "2"]
    for key, kernel in bundle.kernels.items():
        assert isinstance(kernel, AmplitudeAdapter)
        for name_, tensor in hybrid.kernels[key].state_dict().items():
            assert torch.equal(kernel.state_dict()[name_], tensor)


def test_arrays_give_arrays_and_any_batch_runs(bundle: Bundle, expected: torch.Tensor) -> None:
    found = bundle(x=X.double().numpy())["y"]
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(bundle(x=X[:1].numpy())["y"], expected[:1].numpy(), atol=1e-5)


@pytest.mark.parametrize("kernels", ["0", "2", None, ["0"], "*"])
def test_kernels_run_in_torch_and_the_rest_in_onnxruntime(
    bundle: Bundle, expected: torch.Tensor, kernels: object
) -> None:
    assert bundle.use("statevector", kernels) is bundle
    torch.testing.assert_close(bundle(x=X)["y"], expected, atol=1e-5, rtol=0)
    assert len(bundle._stages) == (2 if kernels in ("0", "2", ["0"]) else 3)
    bundle.use("onnxruntime")
    assert len(bundle._stages) == 1
    torch.testing.assert_close(bundle(x=X)["y"], expected, atol=1e-5, rtol=0)


def test_samples_are_the_hybrids(bundle: Bundle, hybrid: HybridModule) -> None:
    executor = ShotsExecutor(shots=50, seed=3)
    with torch.no_grad():
        sampled = hybrid.use("shots", shots=50, seed=3)(X)
    hybrid.use("statevector")
    torch.testing.assert_close(bundle.use(executor)(x=X)["y"], sampled, atol=1e-5, rtol=0)
    assert executor.runs == 2
    bundle.use("statevector", "2")
    bundle(x=X)
    assert executor.runs == 3  # the other kernel keeps what it has


def test_noise_of_a_target(bundle: Bundle, expected: torch.Tensor) -> None:
    gates = [Gate("sx", (q,), 1e-4, 3e-8) for q in range(3)] + [Gate("rz", (q,), 0.0, 0.0) for q in range(3)]
    gates += [Gate("cz", pair, 5e-3, 7e-8) for pair in ((0, 1), (1, 2))]
    target = Target("three", "three qubits", 3, tuple(gates), (QubitProperties(0.01, 1e-6, 1e-4, 1e-4),) * 3)
    found = bundle.use("noisy", "0", shots=4000, seed=0, target=target)(x=X)["y"]
    assert 1e-4 < (found - expected).abs().max() < 0.2
    with pytest.raises(ExecutionError, match="'line-5' has no noise to simulate"):
        bundle.use("noisy")


def test_noise_of_the_bundles_own_target_and_of_a_pytket_backend(tmp_path: Path) -> None:
    gates = [Gate("sx", (q,), 1e-3, 3e-8) for q in range(3)] + [Gate("rz", (q,), 0.0, 0.0) for q in range(3)]
    gates += [Gate("cz", pair, 2e-2, 7e-8) for pair in ((0, 1), (1, 2))]
    target = Target("three", "three qubits", 3, tuple(gates), (QubitProperties(0.02, 1e-6, 1e-4, 1e-4),) * 3)
    hybrid = small_hybrid(target)
    write_small(tmp_path / "small", hybrid)
    bundle = load(tmp_path / "small")
    assert bundle.target == target
    with torch.no_grad():
        expected = hybrid(X)
        sampled = hybrid.use("noisy", shots=3000, seed=1)(X)
    found = bundle.use("noisy", shots=3000, seed=1)(x=X)["y"]
    torch.testing.assert_close(found, sampled, atol=1e-5, rtol=0)
    noise = (found - expected).abs().max()
    executor = PytketExecutor(AerBackend(noise_model(target, [0, 1, 2])), 3000, target=target, seed=1)
    by_pytket = bundle.use(executor)(x=X)["y"]
    assert executor.runs == 2
    assert 0.01 < noise < 0.3 and 0.01 < (by_pytket - expected).abs().max() < 0.3
    exact = bundle.use(PytketExecutor(AerBackend(), 3000, seed=1))(x=X)["y"]
    assert (exact - expected).abs().max() < 0.1


def test_a_kernel_without_a_body_needs_an_executor(folder: Path, expected: torch.Tensor) -> None:
    bundle = load(folder / "needy.qcb")
    with pytest.raises(ExecutionError, match=r"kernel '2' cannot run in onnxruntime: it is left out.*statevector"):
        bundle(x=X)
    with pytest.raises(ExecutionError, match="cannot run in onnxruntime"):
        bundle.use("onnxruntime", "2")
    torch.testing.assert_close(bundle.use("statevector", "2")(x=X)["y"], expected, atol=1e-5, rtol=0)


def test_back_into_torch(bundle: Bundle, hybrid: HybridModule) -> None:
    again = bundle.to_torch()
    assert set(again.state_dict()) == set(hybrid.state_dict())
    for name, tensor in hybrid.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert again.plan == hybrid.plan


def test_calls_that_do_not_fit(bundle: Bundle) -> None:
    for inputs, message in (
        ({}, "input 'x' is missing"),
        ({"x": X, "z": X}, "no input 'z'; it takes x"),
        ({"x": X[:, :5]}, r"x has shape \[4, 5\]; \['batch', 6\] is accepted"),
        ({"x": X[0]}, r"x has shape \[6\]"),
        ({"x": X.long()}, "x is int64; floating-point values like float32"),
        ({"x": X.bfloat16()}, "which numpy does not have"),
        ({"x": X.tolist()}, "must be a numpy array or a tensor, got list"),
    ):
        with pytest.raises(ExecutionError, match=message):
            bundle(**inputs)
    for arguments, options, message in (
        (("statevector", "7"), {}, "no kernel '7'; it has 0, 2"),
        (("analog",), {}, "executor 'analog' is unknown"),
        (("shots",), {"shot": 3}, "no option shot"),
        (("onnxruntime",), {"shots": 3}, "takes no options, got shots"),
    ):
        with pytest.raises(ExecutionError, match=message):
            bundle.use(*arguments, **options)
    with pytest.raises(ExecutionError, match="threads=0"):
        load(bundle.path, threads=0)


def test_a_call_outlives_the_file(folder: Path, tmp_path: Path, expected: torch.Tensor) -> None:
    copy = tmp_path / "copy.qcb"
    copy.write_bytes((folder / "small.qcb").read_bytes())
    bundle = qcascade.load(copy)
    copy.unlink()
    bundle.close()
    torch.testing.assert_close(bundle.use("statevector", "2")(x=X)["y"], expected, atol=1e-5, rtol=0)


def test_command_line(folder: Path, tmp_path: Path, expected: torch.Tensor) -> None:
    np.savez(tmp_path / "x.npz", x=X.numpy())
    names = [str(folder / "small.qcb"), "--inputs", str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz")]
    result = CliRunner().invoke(app, ["run", *names])
    assert result.exit_code == 0, result.output
    assert result.output == "y\tfloat32\t[4, 3]\n"
    np.testing.assert_allclose(np.load(tmp_path / "y.npz")["y"], expected.numpy(), atol=1e-5)
    result = CliRunner().invoke(
        app, ["run", *names, "--executor", "shots", "--shots", "9", "--seed", "1", "--kernel", "2"]
    )
    assert result.exit_code == 0, result.output
    assert np.abs(np.load(tmp_path / "y.npz")["y"] - expected.numpy()).max() > 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz", "y.npz"]
    np.savez(tmp_path / "x.npz", x=np.array([{"an": "object"}]), allow_pickle=True)
    result = CliRunner().invoke(app, ["run", *names])
    assert isinstance(result.exception, ExecutionError) and "no .npz file of plain arrays" in str(result.exception)
    np.save(tmp_path / "x.npy", X.numpy())
    result = CliRunner().invoke(app, ["run", *names[:2], str(tmp_path / "x.npy"), *names[3:]])
    assert isinstance(result.exception, ExecutionError) and "one array without a name" in str(result.exception)


def test_inspect(folder: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(folder / "small.qcb"), "--width", "60"])
    assert result.exit_code == 0, result.output
    assert "checksums  verified: 6 files" in result.output
    assert "circuit adapter: 3 qubits, 11 gates, 2 on two qubits" in result.output
    drawn = [line for line in result.output.splitlines() if line.startswith("    q")]
    assert len(drawn) == 12 and max(map(len, drawn)) <= 60
    result = CliRunner().invoke(app, ["inspect", str(folder / "small"), "--format", "json"])
    found = json.loads(result.output)
    assert found["circuits"]["0"][0]["two_qubit_gates"] == 2
    assert found["size"] == sum(p.stat().st_size for p in (folder / "small").rglob("*") if p.is_file())


def test_drawings_build_nothing() -> None:
    hostile = {
        "qubits": [["q", [0]]],
        "commands": [{"op": {"type": "\x1b[2J", "params": ["exit()"]}, "args": [["q", [0]]]}],
    }
    assert draw(read_circuit(hostile, "x")) == "q0: ─?[2J(exit())─"
    for odd in (None, {}, {"qubits": [1], "commands": []}, {"qubits": [], "commands": [{}]}):
        with pytest.raises(BundleError, match="no circuit in pytket's JSON form"):
            read_circuit(odd, "x")
