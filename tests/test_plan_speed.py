"""What keeps planning quick changes no result: costs are shared only by what is alike."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from qcascade.capture import capture
from qcascade.capture.export import export_graph
from qcascade.capture.graph import CapturedModel
from qcascade.cost_models import classical
from qcascade.cost_models.classical import NodeCosts, OperationCosts, count
from qcascade.cost_models.machine import Machine
from qcascade.passes.base import find_regions
from qcascade.passes.extract_region import likeness
from qcascade.passes.graph_walk import between, is_size
from qcascade.passes.pipeline import FIND
from qcascade.plan import Candidate, Costs

MACHINE = Machine("m", 1, (16, 64), (1e9, 4e9), 1e10, 1e-6, 1e9)


class Odd(nn.Module):
    """Layers alike and unlike, views, a buffer changed in place, numbers as arguments."""

    def __init__(self, inplace_view: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16 + 8 * (i % 2), batch_first=True) for i in range(4)
        )
        self.register_buffer("seen", torch.zeros(8))
        self.inplace_view = inplace_view

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x) * (1 + number % 2)
        self.seen.add_(x.detach().mean((0, 1)))
        y = x.transpose(1, 2)[:, 1::2].clone()
        if self.inplace_view:
            y = y.unsqueeze_(0).squeeze(0)
        return y.flatten(1).cumsum(1)


class Directly(fx.Interpreter):
    """Runs every node on fake tensors of its own."""

    def __init__(self, module: fx.GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module)
        self.mode, self.costs = mode, {}

    def fetch_attr(self, target: str) -> object:
        value = super().fetch_attr(target)
        return self.mode.from_tensor(value, static_shapes=True) if isinstance(value, Tensor) else value

    def run_node(self, node: fx.Node) -> object:
        results: list[object] = []
        self.costs[node] = count(lambda: results.append(super(Directly, self).run_node(node)), MACHINE)
        return results[0]


@pytest.fixture(scope="module")
def odd() -> CapturedModel:
    return capture(Odd(False), torch.randn(2, 6, 8))


@pytest.mark.parametrize("inplace_view", [False, True])
def test_costs_are_those_of_running_every_node(odd: CapturedModel, inplace_view: bool) -> None:
    x = torch.randn(2, 6, 8)
    graph = export_graph(Odd(True).eval(), (x,), {}) if inplace_view else odd.eval_graph
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        direct = Directly(graph, mode)
        direct.run(mode.from_tensor(x, static_shapes=True), enable_io_processing=False)
    for _ in range(2):  # the second time everything is known
        assert NodeCosts(graph, MACHINE)([x]) == direct.costs
    longer = NodeCosts(graph, MACHINE)([torch.randn(2, 9, 8)])
    assert sum(c.flops for c in longer.values()) > sum(c.flops for c in direct.costs.values())


def test_repeated_layers_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    original = classical._Counter.__torch_dispatch__

    def counted(self: object, *args: object, **kwargs: object) -> object:
        runs.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(classical._Counter, "__torch_dispatch__", counted)
    totals = []
    for depth in (2, 8):
        model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(depth)))
        graph = capture(model, torch.randn(3, 8)).eval_graph
        classical._known_operators(MACHINE).clear()
        runs.clear()
        costs = NodeCosts(graph, MACHINE)([torch.randn(3, 8)])
        totals.append((len(runs), sum(costs.values(), OperationCosts()).flops))
    assert totals[0][0] == totals[1][0]
    assert totals[1][1] == 4 * totals[0][1]


def test_alike_regions_are_told_from_others(odd: CapturedModel) -> None:
    matches = {m.name: m for m in find_regions(FIND, odd.eval_graph, odd)}
    seen = {name: likeness(odd.eval_graph, match) for name, match in matches.items()}
    assert all(key is not None for key in seen.values())
    attentions = [seen[f"layers.{i}.self_attn"] for i in range(4)]
    assert len(set(attentions)) == 1
    assert seen["layers.0.linear1"] == seen["layers.2.linear1"] != seen["layers.1.linear1"]
    assert seen["layers.0.linear1"] != seen["layers.0.linear2"]


def test_nodes_between_are_found_without_looking_further(odd: CapturedModel) -> None:
    """Against reachability in the whole graph, by networkx."""
    graph = odd.eval_graph.graph
    whole = nx.DiGraph()
    for node in graph.nodes:
        whole.add_node(node)
        whole.add_edges_from((node, user) for user in node.users if not is_size(user) and not is_size(node))
    for match in find_regions(FIND, odd.eval_graph, odd):
        if match.pattern == "attention":
            source, target = match.inputs[0], match.output
            assert source is not None
            wanted = (nx.descendants(whole, source) & nx.ancestors(whole, target)) | {target}
            assert between(source, target) == wanted
            assert match.nodes == tuple(n for n in graph.nodes if n in wanted)


def test_groups_are_those_of_comparing_every_pair(odd: CapturedModel) -> None:
    from qcascade.passes.select_partition import _groups, _Option, _overlap

    matches = find_regions(FIND, odd.eval_graph, odd)
    options = [_Option(m, Candidate(kernel, {}, Costs()), 1.0, "") for m in matches for kernel in ("a", "b")]
    pairs = nx.Graph()
    pairs.add_nodes_from(range(len(options)))
    pairs.add_edges_from(
        (i, j)
        for (i, a), (j, b) in combinations(enumerate(options), 2)
        if a.match is b.match or _overlap(a.match, b.match)
    )
    wanted = [[options[i] for i in sorted(c)] for c in nx.connected_components(pairs)]
    assert [[id(o) for o in g] for g in _groups(options)] == [[id(o) for o in g] for g in wanted]
    assert 1 < len(wanted) < len(options)
