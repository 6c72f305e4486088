"""torch.compile(model, backend="qcascade"): every graph is planned and reported, and trains as it did."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import qcascade
from qcascade import dynamo
from qcascade.errors import PlanError, TargetError
from qcascade.plan import Verdict

sys.path.insert(0, str(Path(__file__).parent / "loops"))
from task import KERNELS, Classifier, data

IDS, LABELS = data()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    dynamo.clear()
    yield
    torch._dynamo.reset()
    dynamo.clear()


def compiled(model: nn.Module, **options: object) -> nn.Module:
    return torch.compile(model, backend=dynamo.qcascade_backend, options={"backend": "aot_eager", **options})


def test_entry_point_is_declared() -> None:
    """torch finds the backend of an installed QCascade by this line."""
    project = tomllib.loads((Path(qcascade.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["torch_dynamo_backends"]["qcascade"].partition(":")
    assert getattr(sys.modules[module], name) is dynamo.qcascade_backend


def test_the_backend_is_found_by_name() -> None:
    torch._dynamo.register_backend(dynamo.qcascade_backend, name="qcascade here")
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(5, 4)
    quick = torch.compile(model, backend="qcascade here", options={"backend": "eager"})
    torch.testing.assert_close(quick(x), model(x))
    assert len(dynamo.reports()) == 1


def test_a_graph_has_the_plan_of_its_model_and_trains_the_model_itself(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model, twin = Classifier(0.0), Classifier(0.0)
    twin.load_state_dict(model.state_dict())
    quick = compiled(model, kernels=KERNELS)
    cross_entropy(quick(IDS), LABELS).backward()
    cross_entropy(twin(IDS), LABELS).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)

    (report,) = dynamo.reports()
    direct = qcascade.plan(twin, IDS, kernels=KERNELS)
    ours, wanted = ({r.name: r for r in regions} for regions in (report.regions, direct.regions))
    assert set(ours) == set(wanted)
    for name, region in wanted.items():
        assert ours[name].verdict is region.verdict
        assert ours[name].reason == region.reason
        assert ours[name].flops == region.flops
    assert sum(r.verdict is Verdict.OFFLOADED for r in report.regions) == 3
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.strip() == str(report)
    assert "3 of 7 regions" in line

    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(10):
        loss = cross_entropy(quick(IDS), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert len(dynamo.reports()) == 1


def test_every_graph_of_a_broken_model_is_reported() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            torch._dynamo.graph_break()
            return self.second(y)

    model, x = Broken(), torch.randn(3, 4)
    torch.testing.assert_close(compiled(model, quiet=True)(x), model(x))
    assert [r.number for r in dynamo.reports()] == [0, 1]
    assert [[g.name for g in r.regions] for r in dynamo.reports()] == [["first"], ["second"]]


def test_a_graph_that_cannot_be_planned_runs_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    graph = torch.fx.symbolic_trace(lambda x: torch.nonzero(x).tolist())  # capture refuses: its result is no tensor

    run = dynamo.qcascade_backend(graph, [torch.zeros(2)], options={"backend": "eager"})
    assert run(torch.ones(2)) == [[0], [1]]
    (report,) = dynamo.reports()
    assert report.plan is None
    assert report.failure is not None and "returns list without any tensor" in report.failure
    assert capsys.readouterr().err == f"qcascade: graph 0 (2 operations): not planned: {report.failure}\n"
    assert report.regions == ()


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    compiled(nn.Linear(4, 2), quiet=True)(torch.randn(3, 4))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"offload": True}, PlanError, r"torch.compile\(qcascade.compile\(model\)\)"),
        ({"objektive": "offload"}, PlanError, "takes target, objective"),
        ({"objective": "fun"}, PlanError, "choose one of"),
        ({"target": "nowhere"}, TargetError, "nowhere"),
    ],
)
def test_wrong_options_say_what_is_accepted(options: dict[str, object], error: type[Exception], message: str) -> None:
    graph = torch.fx.symbolic_trace(nn.Linear(4, 2))
    with pytest.raises(error, match=message):
        dynamo.qcascade_backend(graph, [torch.zeros(2, 4)], options=options)
