"""The choice: objectives, limits, globs, overlap, reasons, and bad requests."""

from __future__ import annotations

import copy
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from conftest import bert, gpt2, llama, text_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import qcascade
from qcascade import Limits, PartitionPlan
from qcascade.errors import PlanError, TargetError
from qcascade.passes.select_partition import _best, _Option
from qcascade.plan import Verdict


def offloaded(plan: PartitionPlan) -> set[str]:
    return {r.name for r in plan.regions if r.verdict is Verdict.OFFLOADED}


pytestmark = pytest.mark.usefixtures("captured_once")
ATTENTION = {f"bert.encoder.layer.{i}.attention" for i in (0, 1)}
INPUTS = text_inputs()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return bert()


def test_offload_takes_all_that_fits(model: nn.Module) -> None:
    plan = qcascade.plan(model, INPUTS)
    assert offloaded(plan) == {*ATTENTION, "classifier"}
    assert plan.summary.offloaded == 3
    assert plan.summary.flops_offloaded == sum(plan[n].flops or 0 for n in offloaded(plan))
    assert str(plan).startswith("19 regions found, 3 offloaded, ")


def test_plans_are_repeatable_and_complete_json(model: nn.Module) -> None:
    first, second = qcascade.plan(model, INPUTS), qcascade.plan(copy.deepcopy(model), INPUTS)  # captured anew
    assert first == second
    parsed = json.loads(first.to_json())
    assert parsed == json.loads(json.dumps(first.to_dict()))
    assert parsed["schema_version"] == 1
    assert {r["verdict"] for r in parsed["regions"]} == {"offloaded", "kept"}
    candidate = next(r for r in parsed["regions"] if r["name"] in ATTENTION)["candidates"][0]
    assert candidate["fidelity"] is None  # unknown on an ideal target, not 0
    assert candidate["qubits"] == 9
    assert candidate["loading_two_qubit_gates"] == 2**10 - 4


def test_a_model_without_values_has_the_plan_of_one_with_them(model: nn.Module) -> None:
    with torch.device("meta"):
        hollow = bert()
    inputs = {name: tensor.to("meta") for name, tensor in INPUTS.items()}
    plan, known = qcascade.plan(hollow, inputs), qcascade.plan(model, INPUTS)
    assert plan.regions == known.regions and plan.summary == known.summary
    assert "meta device" in plan.capture.notes[0] and not any("meta" in note for note in known.capture.notes)
    assert all(parameter.is_meta for parameter in hollow.parameters())
    with pytest.raises(qcascade.CaptureError, match=r"meta device.*qcascade.plan takes it"):
        qcascade.compile(hollow, INPUTS)


@pytest.mark.parametrize(
    ("limits", "left", "reason"),
    [
        (Limits(max_qubits=8), {"classifier"}, "needs 9 qubits; max_qubits=8"),
        (Limits(max_two_qubit_depth=100), {"classifier"}, "max_two_qubit_depth=100"),
        (Limits(min_flops=1000), ATTENTION, "min_flops=1000"),
        (Limits(min_fidelity=0.5), set(), "fidelity is unknown"),
        (Limits(max_qubits=1), set(), "max_qubits=1"),
    ],
)
def test_limits_keep_regions_with_the_number(model: nn.Module, limits: Limits, left: set[str], reason: str) -> None:
    plan = qcascade.plan(model, INPUTS, limits=limits)
    assert offloaded(plan) == left
    kept = [plan[n].reason for n in {*ATTENTION, "classifier"} - left]
    assert all(reason in r for r in kept)


def test_limits_that_nothing_meets_still_compile(model: nn.Module) -> None:
    hybrid = qcascade.compile(copy.deepcopy(model), INPUTS, limits=Limits(max_qubits=1))
    assert hybrid.kernels == {}
    assert str(hybrid.plan).startswith("19 regions found, 0 offloaded, 0.0 %")


def test_globs(model: nn.Module) -> None:
    assert offloaded(qcascade.plan(model, INPUTS, include="*.0.attention")) == {"bert.encoder.layer.0.attention"}
    plan = qcascade.plan(model, INPUTS, exclude=["*.attention"])
    assert offloaded(plan) == {"classifier"}
    assert plan["bert.encoder.layer.0.attention"].reason == "excluded by '*.attention'"


def test_kernels_by_name_and_options(model: nn.Module) -> None:
    plan = qcascade.plan(model, INPUTS, kernels={"amplitude_attention_pooling": {"max_length": 64, "slots": 4}})
    assert offloaded(plan) == ATTENTION
    chosen = plan["bert.encoder.layer.0.attention"].candidates[0]
    assert (chosen.costs.qubits, chosen.options["slots"]) == (6, 4)
    assert "no kernel" in plan["classifier"].reason


def test_adapters_only_where_asked_and_never_over_an_offloaded_region(model: nn.Module) -> None:
    assert not any("adapter" in str(r.kernel) for r in qcascade.plan(model, INPUTS).regions)
    plan = qcascade.plan(model, INPUTS, kernels=["amplitude_adapter"], include="*.query")
    assert offloaded(plan) == {f"bert.encoder.layer.{i}.attention.self.query" for i in (0, 1)}
    assert plan.summary.flops_offloaded == 0
    both = qcascade.plan(model, INPUTS, kernels=["amplitude_adapter", "amplitude_attention_pooling"])
    assert offloaded(both) >= ATTENTION
    inside = both["bert.encoder.layer.0.attention.self.query"]
    assert inside.reason.startswith("overlaps with bert.encoder.layer.0.attention")
    assert both["bert.pooler.dense"].verdict is Verdict.OFFLOADED


def test_objectives_give_both_numbers(model: nn.Module) -> None:
    timed = qcascade.plan(model, INPUTS, objective="train_time")
    for region in timed.regions:
        if region.candidates and region.candidates[0].refusal is None:
            simulated = region.candidates[0].costs.seconds_simulated_training
            assert simulated is not None
            assert region.seconds_training is not None
            assert (region.verdict is Verdict.OFFLOADED) == (simulated < region.seconds_training)
            assert "simulated against" in region.reason
    hardware = qcascade.plan(model, INPUTS, objective="hardware_time")
    assert not offloaded(hardware)
    assert "to break even a shot would have to take at most" in hardware["classifier"].reason


@pytest.fixture(scope="module")
def language_model() -> nn.Module:
    return gpt2()


@pytest.mark.parametrize(
    ("make", "reason"), [(None, "causal attention"), (llama, "causal attention")], ids=["gpt2", "llama"]
)
def test_causal_models_are_kept_with_that_reason(language_model: nn.Module, make: object, reason: str) -> None:
    plan = qcascade.plan(make() if make else language_model)  # type: ignore[operator]
    region = next(r for r in plan.regions if r.pattern == "attention")
    assert region.verdict is Verdict.KEPT
    assert region.reason.startswith(reason)


def test_tables_that_cannot_be_replaced(model: nn.Module, language_model: nn.Module) -> None:
    assert "tied to lm_head" in qcascade.plan(language_model)["transformer.wte"].reason
    assert "fewer than" in qcascade.plan(model, INPUTS)["bert.embeddings.word_embeddings"].reason


def test_nan_weights_are_a_stated_verdict() -> None:
    model = bert()
    with torch.no_grad():
        model.get_parameter("bert.encoder.layer.0.attention.self.value.weight")[3, 4] = torch.nan
    plan = qcascade.plan(model, INPUTS)
    assert plan["bert.encoder.layer.0.attention"].verdict is Verdict.KEPT
    assert "1 of the 1024 entries of its value.weight are NaN" in plan["bert.encoder.layer.0.attention"].reason
    assert plan["bert.encoder.layer.1.attention"].verdict is Verdict.OFFLOADED


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": "ibm_nowhere"}, TargetError, "unknown target 'ibm_nowhere'.*known: grid-RxC, ibm_"),
        ({"objective": "fame"}, PlanError, "offload, train_time, hardware_time"),
        ({"kernels": ["softmax"]}, PlanError, "unknown kernel 'softmax'; known: amplitude_adapter"),
        ({"kernels": {"reuploading_head": {"qbits": 4}}}, PlanError, "no option qbits"),
        ({"kernels": {"reuploading_head": {"qubits": "4"}}}, PlanError, "qubits='4': Input should be a valid integer"),
        ({"kernels": {"reuploading_head": {"qubits": 40}}}, PlanError, "qubits=40.*must be 2 to 16"),
        ({"kernels": {"amplitude_attention_pooling": {"slots": 0}}}, PlanError, "slots=0.*at least 1"),
        ({"kernels": {"random_circuit_embedding": {"qubits": True}}}, PlanError, "valid integer"),
        ({"kernels": {"amplitude_adapter": {"layers": 0}}}, PlanError, "layers=0 must be at least 1"),
        ({"limits": 5}, PlanError, "limits is int; give qcascade.Limits"),
        ({"limits": qcascade.Limits(max_qubits=-1)}, PlanError, "max_qubits=-1; a number of at least 0"),
        ({"limits": qcascade.Limits(min_fidelity=float("nan"))}, PlanError, "min_fidelity=nan"),
        ({"seed": "one"}, PlanError, "seed='one'; a whole number"),
        ({"seed": -1}, PlanError, "seed=-1; a whole number from 0"),
        ({"seed": 2**63}, PlanError, "a whole number from 0 to 2\\*\\*63 - 1"),
    ],
)
def test_bad_requests_are_one_clear_error(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        qcascade.compile(nn.Linear(4, 2), **arguments)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.sets(st.integers(0, 7), min_size=1, max_size=4)), min_size=1, max_size=7)
)
def test_the_choice_is_the_best_of_all_subsets(regions: list[tuple[float, set[int]]]) -> None:
    matches = [SimpleNamespace(nodes=tuple(nodes)) for _, nodes in regions]
    options = [_Option(m, None, value, "") for m, (value, _) in zip(matches, regions, strict=True)]  # type: ignore[arg-type]

    def allowed(subset: tuple[_Option, ...]) -> bool:
        return all(set(a.match.nodes).isdisjoint(b.match.nodes) for a, b in itertools.combinations(subset, 2))

    best = max(
        sum(o.value for o in subset)
        for size in range(len(options) + 1)
        for subset in itertools.combinations(options, size)
        if allowed(subset)
    )
    chosen = tuple(_best(options))
    assert allowed(chosen)
    assert sum(o.value for o in chosen) == pytest.approx(best, rel=1e-4)


class Reused(nn.Module):
    """A module that runs three times, with a head that reads the table again."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        for _ in range(3):
            x = self.layer(x)
        y: Tensor = self.out(x.mean(1))
        return y


class Modes(nn.Module):
    """What its head does in training mode, where it is not what it does in evaluation mode."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.table = nn.Embedding(2000, 64)
        self.body = nn.Linear(64, 64)
        self.head = nn.Linear(64, 3)

    def forward(self, ids: Tensor) -> Tensor | list[Tensor]:
        first = self.table(ids).mean(1)
        last = self.body(first).relu()
        if not self.training:
            return self.head(last)  # type: ignore[no-any-return]
        if self.kind == "deep":
            return [self.head(first), self.head(last)]
        if self.kind == "soft":
            return self.head(last).log_softmax(-1)  # type: ignore[no-any-return]
        return last if self.kind == "none" else [self.head(last), nn.functional.linear(last, self.table.weight)]


def test_regions_that_share_their_weights_are_kept_with_where() -> None:
    hybrid = qcascade.compile(Reused(), torch.zeros(2, 6, dtype=torch.long))
    assert not hybrid.kernels
    shared = "its weights are also used by layer.self_attn#2, layer.self_attn#3"
    assert hybrid.plan["layer.self_attn"].reason == shared
    assert hybrid.plan["out"].reason == "its weights are also used by table"
    assert "tied to out" in hybrid.plan["table"].reason


def test_a_module_called_with_two_inputs_gives_alike_for_alike() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return self.f(a), self.f(b)

    x = torch.randn(3, 16)
    for kernels in (None, ["amplitude_adapter"]):
        hybrid = qcascade.compile(Siamese(), (x, torch.randn(3, 16)), kernels=kernels)
        assert not hybrid.kernels
        assert torch.equal(*hybrid(x, x))
    assert hybrid.plan["f.0"].reason == "its weights are also used by f.0#2"


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("deep", "head", "in training mode its weights are also used by head#2"),
        ("soft", "head", "in training mode its pattern is 'linear', not 'head'"),
        ("none", "head", "in training mode it does not run, or is no region of its own"),
        ("tied", "table", "in training mode its table is tied to table.weight, which would lose its weights"),
    ],
)
def test_regions_that_training_mode_has_otherwise_are_kept(kind: str, name: str, reason: str) -> None:
    hybrid = qcascade.compile(
        Modes(kind),
        torch.zeros(2, 6, dtype=torch.long),
        kernels={"random_circuit_embedding": {"qubits": 4, "layers": 2}, "reuploading_head": {}},
    )
    assert set(hybrid.kernels) == {"table", "head"} - {name}
    assert hybrid.plan[name].reason == reason
    hybrid.train()(torch.zeros(3, 6, dtype=torch.long))
