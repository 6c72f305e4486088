"""Pruning, Hessian products, Lanczos quadrature and the trajectory, against dense Hessians and autograd in float64."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from typer.testing import CliRunner

from qcascade.cli import app
from qcascade.cost_models.fault_tolerant.curvature import Curvature, carleman_number
from qcascade.cost_models.fault_tolerant.lanczos import Spectrum, spectrum
from qcascade.cost_models.fault_tolerant.polynomial import polynomial_loss
from qcascade.cost_models.fault_tolerant.pruning import masks, prune_by_magnitude, sparsity, unprune
from qcascade.cost_models.fault_tolerant.trajectory import Settings, Trajectory, error_proxy, follow, products
from qcascade.errors import ExecutionError, PlanError
from qcascade.studies.fault_tolerant.oracle import OracleCase, dense_hessian, oracle_table, read_digits, run_oracle
from qcascade.studies.records import Records

Batch = tuple[Tensor, Tensor]
SETTINGS = Settings(moments=(0, 3, 6), rate=0.5, prune=0.5, probes=2, iterations=8, third_rounds=1, hessian_rows=1)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.fixture(scope="module")
def digits() -> Batch:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    images, labels = datasets.load_digits(return_X_y=True)
    return torch.tensor(images[:400] / 16), torch.tensor(labels[:400])


@pytest.fixture(scope="module")
def all_digits(digits: Batch) -> Batch:
    images, labels = read_digits()
    assert (images[:400] == digits[0]).all()
    return images.double(), labels


def mlp(width: int = 12) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10)).double()


@pytest.fixture(scope="module")
def trained(all_digits: Batch) -> Curvature:
    """A small pruned classifier after some steps, its loss that of all 1,797 digits."""
    model = mlp()
    prune_by_magnitude(model, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(30):
        optimizer.zero_grad()
        loss(model, all_digits).backward()
        optimizer.step()
    return Curvature(model, loss, list(zip(all_digits[0].chunk(3), all_digits[1].chunk(3), strict=True)))


@pytest.fixture(scope="module")
def dense(trained: Curvature, all_digits: Batch) -> Tensor:
    """The Hessian on kept weights by torch.func, apart from our products."""
    return dense_hessian(trained.model, *all_digits)


def test_products_and_gradients_are_the_dense_ones(trained: Curvature, dense: Tensor) -> None:
    v = torch.randn(trained.size, dtype=torch.float64)
    torch.testing.assert_close(trained.product(v), dense @ v)
    small = 1e-4 * v / v.norm()
    with torch.no_grad():
        trained._move(small, 1.0)
        ahead = trained.gradient()
        trained._move(small, -2.0)
        behind = trained.gradient()
        trained._move(small, 1.0)
    torch.testing.assert_close((ahead - behind) / 2, dense @ small, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_the_density_is_the_exact_one_to_two_percent(trained: Curvature, dense: Tensor, memory: int) -> None:
    """With and without reorthogonalisation; of the Wasserstein distance relative to the spectral range."""
    exact = torch.linalg.eigvalsh(dense).numpy()
    found = spectrum(trained.product, trained.size, probes=6, iterations=40, dtype=torch.float64, memory_bytes=memory)
    assert found.reorthogonalised == (memory > 0)
    values, weights = found.pooled()
    assert wasserstein_distance(values, exact, weights) < 0.02 * (exact[-1] - exact[0])
    assert found.largest == pytest.approx(exact[-1], rel=1e-6)
    assert exact[0] - 1e-9 <= found.smallest <= 0.99 * exact[0]
    edge = 0.01 * exact[-1]
    for mass, truth in (
        (found.mean(lambda v: (v > edge).astype(float)), (exact > edge).mean()),
        (found.mean(lambda v: (v < -edge).astype(float)), (exact < -edge).mean()),
    ):
        assert mass.error is not None
        assert abs(mass.mean - truth) < 5 * mass.error + 0.02


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.integers(0, 1000))
def test_moments_of_the_density_are_traces(diagonal: list[float], seed: int) -> None:
    """Rademacher probes give the trace of a diagonal operator exactly, and Lanczos its powers."""
    d = torch.tensor(diagonal, dtype=torch.float64)
    found = spectrum(lambda v: d * v, len(d), probes=2, iterations=6, seed=seed, dtype=torch.float64)
    for power in (1, 2, 3):
        assert found.mean(lambda v, p=power: v**p).mean == pytest.approx(float((d**power).mean()), abs=1e-6 * 5**power)


def test_third_derivatives_are_autograd_s(trained: Curvature) -> None:
    v = torch.randn(trained.size, dtype=torch.float64)
    v /= v.norm()
    total = torch.zeros_like(v)
    parts = trained._scattered(v)
    for batch in trained.batches:
        first = torch.autograd.grad(loss(trained.model, batch), trained.parameters, create_graph=True)
        along = sum((g * p).sum() for g, p in zip(first, parts, strict=True))
        second = torch.autograd.grad(along, trained.parameters, create_graph=True)
        along = sum((g * p).sum() for g, p in zip(second, parts, strict=True))
        total += trained._gathered(torch.autograd.grad(along, trained.parameters)) / len(trained.batches)
    torch.testing.assert_close(trained.third(v, 1e-3), total, rtol=1e-4, atol=1e-7)


def test_no_carleman_number_where_the_hessian_is_not_positive(trained: Curvature) -> None:
    found = spectrum(trained.product, trained.size, probes=1, iterations=30, dtype=torch.float64)
    number = carleman_number(trained, found, distance=1.0, rounds=2, seed=0)
    assert number.ratio is None
    bowl = Spectrum((np.array([0.5, 2.0]),), (np.array([0.5, 0.5]),), True)
    known = carleman_number(trained, bowl, distance=2.0, rounds=2, seed=0)
    expected = 2.0 * number.second_norm + number.gradient_norm / 2.0
    assert known.ratio == pytest.approx(expected / 0.5)
    assert known.least == pytest.approx(expected / 2.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 5), st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 5))
def test_a_carleman_number_below_one_is_a_flow_that_shrinks(
    rate: float, forcing: float, bend: float, distance: float
) -> None:
    """R of v' = F₀ − λv + F₂v² and the flow at ±distance: its norm shrinks whatever the signs where R < 1, and only there."""
    flow = polynomial_loss(0.0, [-forcing], [[rate / 2]], [[[-bend / 3]]])
    slope = max(float(-sign * flow.gradient([sign * distance])[0]) for sign in (1, -1))
    aligned = abs(forcing) - rate * distance + abs(bend) * distance**2

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    curvature = Curvature(
        Flow(), lambda m, c: -c[0] * m.v[0] + c[1] * m.v[0] ** 2 / 2 - c[2] * m.v[0] ** 3 / 3, [(forcing, rate, bend)]
    )
    bowl = Spectrum((np.array([rate]),), (np.ones(1),), True)
    ratio = carleman_number(curvature, bowl, distance, rounds=1, seed=0).ratio
    assert ratio is not None
    assert aligned == pytest.approx(rate * distance * (ratio - 1), rel=1e-5, abs=1e-6)
    assert slope <= aligned + 1e-9


def test_the_study_s_oracle_agrees_to_two_percent(tmp_path: Path) -> None:
    case = OracleCase(4, width=4, warmup=4, probes=4, iterations=24)
    found = run_oracle(case)
    assert found["images"] == 1797
    assert found["wasserstein"] < 0.02
    assert found["largest"][1] == pytest.approx(found["largest"][0], rel=1e-3)
    table = oracle_table([Records(tmp_path / "oracle.jsonl").add(case, found)]).markdown()
    assert f"{100 * found['wasserstein']:.2g} %" in table


def test_masks_stay_through_training(digits: Batch) -> None:
    model = mlp()
    left = prune_by_magnitude(model, 0.9)
    assert left.kept == 22 + round(0.1 * (64 * 12 + 120))
    pruned = {name: m == 0 for name, m in masks(model).items()}
    follow(model, loss, lambda step: digits, [digits], SETTINGS)
    assert all((model[i].weight[pruned[f"{i}.weight_orig"]] == 0).all() for i in (0, 2))
    assert sparsity(model) == left


def test_attention_is_pruned_with_its_output_projection() -> None:
    """torch reads out_proj.weight without calling out_proj; the mask holds in training, evaluation and without gradients."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True).double()
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 3)).double()
    prune_by_magnitude(model, 0.5)
    assert sum("out_proj" in name for name in masks(model)) == 1
    batch = torch.randn(5, 4, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    curvature = Curvature(model, loss, [batch])
    u, v = torch.randn(2, curvature.size, dtype=torch.float64)
    assert float(u @ curvature.product(v)) == pytest.approx(float(v @ curvature.product(u)))  # symmetric
    for step in range(3):  # and it trains
        follow(model, loss, lambda _: batch, [batch], Settings((step,), 0.1, 0.5, 1, 2, 1, 1))
    projection, before = layer.self_attn.out_proj, model.eval()(batch[0])
    with torch.no_grad():
        torch.testing.assert_close(model(batch[0]), before)
        projection.weight_orig += 1.0  # type: ignore[operator]
        moved = model(batch[0])
        assert not torch.allclose(moved, before)
    assert (projection.weight[projection.weight_mask == 0] == 0).all()  # type: ignore[operator]
    unprune(model)
    assert not masks(model)
    torch.testing.assert_close(model(batch[0]), moved)


def test_a_held_product_is_the_product(trained: Curvature) -> None:
    v, w = torch.randn(2, trained.size, dtype=torch.float64)
    with trained.held() as product:
        both = product(v), product(w)
        torch.testing.assert_close(both, (trained.product(v), trained.product(w)))
    line = Curvature(nn.Linear(3, 1).double(), lambda m, x: m(x).sum(), [torch.ones(2, 3, dtype=torch.float64)])
    assert (line.product(torch.ones(4, dtype=torch.float64)) == 0).all()


def test_a_trajectory_broken_off_between_probes_keeps_them(digits: Batch, tmp_path: Path) -> None:
    settings = replace(SETTINGS, warmup=2, optimizer="adamw", moments=(0, 2), probes=3)
    whole = follow(mlp(), loss, lambda step: digits, [digits], settings)
    calls = list[int]()

    def third_probe() -> None:
        calls.append(1)
        if len(calls) == products(settings) // 2 + 2 * settings.iterations + 3:  # of the second moment
            raise KeyboardInterrupt

    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        follow(mlp(), loss, lambda step: digits, [digits], settings, file=file, advance=third_probe)
    seen, moments = list[int](), list[int]()
    again = follow(
        mlp(), loss, lambda step: digits, [digits], settings,
        file=file, advance=lambda: seen.append(1), on_moment=lambda m: moments.append(m.step),
    )  # fmt: skip
    assert len(seen) == settings.iterations
    assert moments == [2]
    assert_alike(again, whole)
    assert again.moments[0].spectrum().largest == whole.moments[0].largest


def assert_alike(first: Trajectory, second: Trajectory) -> None:
    """Up to rounding: sums may be taken in another order where memory lies elsewhere."""
    assert first.sparsity == second.sparsity
    for one, other in zip(first.moments, second.moments, strict=True):
        flat = [np.array(pytree.tree_leaves(asdict(m)), dtype=object) for m in (one, other)]
        assert [x is None for x in flat[0]] == [x is None for x in flat[1]]
        numbers = [np.array([x for x in f if x is not None], dtype=np.float64) for f in flat]
        np.testing.assert_allclose(*numbers, rtol=1e-6, atol=1e-9)


def test_a_trajectory_goes_on_from_its_file(digits: Batch, tmp_path: Path) -> None:
    file, calls = tmp_path / "state.pt", list[int]()
    whole = follow(mlp(), loss, lambda step: digits, [digits], SETTINGS, advance=lambda: calls.append(1))
    assert len(calls) == products(SETTINGS)

    def interrupted(step: int) -> Batch:
        if step == 4:
            raise KeyboardInterrupt
        return digits

    with pytest.raises(KeyboardInterrupt):
        follow(mlp(), loss, interrupted, [digits], SETTINGS, file=file)
    steps = list[int]()
    again = follow(mlp(), loss, lambda step: (steps.append(step), digits)[1], [digits], SETTINGS, file=file)
    assert steps == [3, 4, 5]
    assert_alike(again, whole)
    with pytest.raises(PlanError, match="other settings"):
        follow(mlp(), loss, lambda step: digits, [digits], Settings((0,)), file=file)


def test_the_error_proxy_is_the_sum_it_says() -> None:
    values, rate, steps = np.array([-0.3, 0.0, 0.4, 2.0]), 0.2, 25
    density = Spectrum((values,), (np.full(4, 0.25),), True)
    expected = np.mean([abs(sum((1 - rate * v) ** j for j in range(steps))) for v in values]) / steps
    assert error_proxy(density, rate, steps).mean == pytest.approx(expected)


def test_the_command_reports(digits: Batch, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(64, 10))\n"
    )
    np.savez(tmp_path / "train.npz", input=digits[0].float().numpy(), labels=digits[1].numpy())
    line = ["fault-tolerant", f"{tmp_path}/made.py:make", "--data", str(tmp_path), "--at", "0", "--at", "2"]
    line += ["--probes", "2", "--iterations", "6", "--format", "json", "--resume", str(tmp_path / "state.pt")]
    told = CliRunner().invoke(app, line)
    assert told.exit_code == 0, told.output
    made = json.loads(told.stdout)
    assert [m["step"] for m in made["trajectory"]["moments"]] == [0, 2]
    assert made["trajectory"]["moments"][0]["smallest"] > -1e-4  # cross-entropy of a linear model is convex
    assert {o["problem"]["access"] for o in made["outlooks"]} == {"lookup", "qram"}
    assert made["outlooks"][0]["hardware"][0]["downloaded_break_even_parameters"] is None
    assert "break-even" in CliRunner().invoke(app, [x if x != "json" else "text" for x in line]).stdout


def test_bad_data_is_refused(tmp_path: Path) -> None:
    line = ["fault-tolerant", "torch.nn:Identity", "--data", str(tmp_path)]
    with pytest.raises(ExecutionError, match=r"neither train\.npz nor train\.tsv"):
        CliRunner().invoke(app, line, catch_exceptions=False)
    np.savez(tmp_path / "train.npz", x=np.zeros((3, 2)))
    with pytest.raises(ExecutionError, match="needs an array labels"):
        CliRunner().invoke(app, line, catch_exceptions=False)
    with pytest.raises(PlanError, match="choose sgd or adamw"):
        Settings(optimizer="lbfgs")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="ascending"):
        Settings((3, 1))
    with pytest.raises(PlanError, match="amount is 1"):
        prune_by_magnitude(nn.Linear(2, 2), 1)
    with pytest.raises(PlanError, match="no weight"):
        prune_by_magnitude(nn.Identity())
