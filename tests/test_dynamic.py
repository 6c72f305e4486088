"""Dynamic offloading: decisions by law and property; real backends whose latency, noise and failures move kernels between places."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import logging
import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from faults.cloud import Cloud, CloudAer, Faults
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from small import EMBEDDING_AND_HEAD, Words
from torch import Tensor, nn

import qcascade
from qcascade import Dynamic, Policy
from qcascade.circuits.template import CircuitTemplate
from qcascade.cost_models.place import Work, forecast
from qcascade.dispatch import DispatchedExecutor, Telemetry
from qcascade.dispatch.choice import Choice, Offer, Rules
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors import DistributedExecutor, NoisyExecutor, PytketExecutor, ShotsExecutor
from qcascade.targets import Price, Target

HEAD = {"reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1}}
MANILA = Target.from_qiskit(FakeManilaV2(), name="ibm_manila")
LOCAL_AND_DEVICE = {"local": Offer(1.0, True), "device": Offer(1.0, True)}


# ------------------------------------------------------------------------------------------------ decisions


def rules_of(**settings: object) -> Rules:
    return Dynamic({"one": "statevector", "other": "shots"}, **settings).rules  # type: ignore[arg-type]


def lasting(choice: Choice) -> list[tuple[int, str]]:
    return [(s.step, s.after) for s in choice.switches if s.lasting and s.before is not None]


def driven(
    choice: Choice, seconds: list[Mapping[str, float]], offers: Mapping[str, Offer] = LOCAL_AND_DEVICE
) -> list[str]:
    """The places of steps that take so long at each place."""
    places = []
    for step, taken in enumerate(seconds, 1):
        place = choice.decide(step, offers)
        choice.measured(step, place, taken[place], offers[place].scale)
        places.append(place)
    return places


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_noise_within_the_hysteresis_never_moves_a_kernel(data: st.DataObject) -> None:
    hysteresis = data.draw(st.floats(1.05, 4.0))
    inside = st.floats(1.0, hysteresis * 0.999)
    rules = rules_of(
        hysteresis=hysteresis,
        patience=data.draw(st.integers(1, 4)),
        weight=data.draw(st.floats(0.05, 1.0)),
        explore=data.draw(st.sampled_from([None, 1, 3, 10])),
    )
    offers = {place: Offer(data.draw(inside), True) for place in ("a", "b", "c")}
    choice = Choice("kernel", tuple(offers), rules)
    seconds = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(offers, inside)), min_size=1, max_size=60))
    places = driven(choice, seconds, offers)
    assert lasting(choice) == []
    again = Choice("kernel", tuple(offers), rules)
    assert driven(again, seconds, offers) == places and again.switches == choice.switches  # nothing else is looked at
    if rules.explore is None:
        assert len(set(places)) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.floats(1.1, 3.0))
def test_an_advantage_has_to_last(patience: int, hysteresis: float) -> None:
    rules = rules_of(hysteresis=hysteresis, patience=patience, weight=1.0, explore=None)
    offers = {"device": Offer(1.0, True), "local": Offer(1.0, True)}
    slow, fast = {"device": hysteresis * 1.5, "local": 1.0}, {"device": 1.0, "local": 1.0}
    choice = Choice("kernel", tuple(offers), rules)
    driven(choice, [fast, fast, *([slow] * (patience - 1)), fast, fast], offers)
    assert lasting(choice) == []  # one step short
    choice = Choice("kernel", tuple(offers), rules)
    driven(choice, [fast, fast, *([slow] * (patience + 1))], offers)
    assert lasting(choice) == [(3 + patience, "local")]


def test_a_place_is_looked_at_again_seldom_and_taken_back_only_past_the_hysteresis() -> None:
    rules = rules_of(hysteresis=1.5, patience=3, explore=10)
    offers = {"device": Offer(0.2, True), "local": Offer(0.5, True)}
    quick, slow, little = ({"device": seconds, "local": 0.5} for seconds in (0.2, 2.0, 0.4))
    choice = Choice("kernel", tuple(offers), rules)
    places = driven(choice, [quick] * 5 + [slow] * 100 + [little] * 200 + [quick] * 400, offers)
    (away, back) = [s for s in choice.switches if s.lasting and s.before is not None]
    assert (away.after, back.after) == ("local", "device")
    assert away.step < 15 and back.step > 305  # 0.4 s is better than 0.5 s, but not by 1.5 times
    looks = [s for s in choice.switches if not s.lasting and s.after == "device" and away.step < s.step < back.step]
    assert len(looks) < 10  # each in vain doubles the wait
    assert places[-1] == "device"
    assert "0.5 s" in back.reason and "looked at" in back.reason


def test_failures_leave_a_place_out_for_longer_and_longer() -> None:
    choice = Choice("kernel", ("device", "local"), rules_of(cooldown=5, patience=1, explore=None))
    offers = {"device": Offer(0.1, True), "local": Offer(1.0, True)}
    tried = []
    for step in range(1, 60):
        if choice.decide(step, offers) == "device":
            tried.append(step)
            choice.failed(step, "device", "refused")
            assert choice.decide(step, offers) == "local"
        choice.measured(step, "local", 1.0, 1.0)
    assert [b - a for a, b in itertools.pairwise(tried)] == [6, 11, 21]
    assert "device failed (refused) and is left out until step 7" in choice.switches[1].reason


def test_objectives() -> None:
    offers = {
        "device": Offer(1.0, True, price=3.0, fidelity=0.8),
        "cluster": Offer(5.0, True),
        "local": Offer(9.0, True),
    }
    assert Choice("k", tuple(offers), rules_of()).decide(1, offers) == "device"
    assert Choice("k", tuple(offers), rules_of(objective="price")).decide(1, offers) == "cluster"
    assert Choice("k", tuple(offers), rules_of(min_fidelity=0.9)).decide(1, offers) == "cluster"
    first = rules_of(objective="first", max_seconds=6.0, patience=1)
    assert Choice("k", ("local", "cluster", "device"), first).decide(1, offers) == "cluster"
    unknown = offers | {"device": Offer(1.0, True, price=None, fidelity=None)}
    assert Choice("k", tuple(offers), rules_of(objective="price")).decide(1, unknown) == "cluster"
    assert Choice("k", tuple(offers), rules_of(min_fidelity=0.1)).decide(1, unknown) == "cluster"
    with pytest.raises(
        ExecutionError, match=r"no place may run k: device: its fidelity is 0\.8, and min_fidelity=0\.9"
    ):
        Choice("k", ("device",), rules_of(min_fidelity=0.9)).decide(1, {"device": offers["device"]})


def test_places_without_a_model_are_measured_first() -> None:
    offers = {"local": Offer(1.0, True), "cluster": Offer(100, False)}
    choice = Choice("kernel", tuple(offers), rules_of(patience=1, explore=None))
    places = driven(choice, [{"local": 1.0, "cluster": 9.0}] + [{"local": 1.0, "cluster": 0.1}] * 5, offers)
    assert places == ["local", "cluster", "cluster", "cluster", "cluster", "cluster"]
    slow = Choice("kernel", tuple(offers), rules_of(patience=1, explore=None))
    assert driven(slow, [{"local": 1.0, "cluster": 9.0}] * 6, offers)[3:] == ["local"] * 3


# ------------------------------------------------------------------------------------------------ real places


@pytest.fixture(scope="module")
def made() -> qcascade.HybridModule:
    torch.manual_seed(0)
    return qcascade.compile(Words(), (torch.ones(2, 4, dtype=torch.long),), kernels=HEAD, include="head").double()


@pytest.fixture
def hybrid(made: qcascade.HybridModule) -> Iterator[qcascade.HybridModule]:
    yield made
    made.use("statevector")


def ids(number: int, rows: int = 2) -> Tensor:
    return torch.randint(1, 300, (rows, 4), generator=torch.Generator().manual_seed(number))


def values(hybrid: qcascade.HybridModule, number: int) -> Tensor:
    with torch.no_grad():
        return hybrid.eval()(ids(number))


def service(folder: Path, faults: Faults, **policy: object) -> tuple[Cloud, DispatchedExecutor]:
    """A real AerBackend behind a cloud with faults."""
    cloud = Cloud(folder / "cloud.sqlite", faults)
    inner = PytketExecutor(CloudAer(cloud), 50)
    return cloud, DispatchedExecutor(inner, policy=Policy(retries=0, backoff=0.0, breaker=1000, **policy))  # type: ignore[arg-type]


def test_a_device_whose_latency_rises_is_left_and_taken_back_when_it_falls(
    hybrid: qcascade.HybridModule, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud, device = service(tmp_path, Faults())
    dynamic = Dynamic(
        {"device": device, "local": "statevector"},
        objective="first",
        max_seconds=0.8,  # far from what the machine itself takes, also a busy one
        hysteresis=1.2,
        patience=2,
        explore=4,
    )
    hybrid.use(dynamic)
    caplog.set_level(logging.INFO, "qcascade")
    lines = tmp_path / "steps.jsonl"
    with Telemetry(hybrid, jsonl=lines) as telemetry:
        number = 0
        for latency, until in ((0.0, "device"), (0.6, "local"), (0.0, "device")):
            cloud.faults = Faults(latency=(latency, latency))
            for _ in range(20):
                number += 1
                with telemetry.step():
                    values(hybrid, number)
                run = hybrid.last_run[0]
                assert (run.kernel, run.place) == ("head", hybrid.places["head"])
                moved = [s.after for s in hybrid.switches if s.lasting]
                if number > 3 and hybrid.places["head"] == until == moved[-1]:
                    break
            else:
                pytest.fail(f"still not at {until}: {hybrid.switches}")
    away, back = [s for s in hybrid.switches if s.lasting and s.before is not None][-2:]
    assert (away.before, away.after, back.before, back.after) == ("device", "local", "local", "device")
    assert str(away) in caplog.text and str(back) in caplog.text
    written = [json.loads(text) for text in lines.read_text().splitlines()]
    assert [s["reason"] for step in written for s in step["switches"]] == [s.reason for s in hybrid.switches]
    assert sum(step["shots"] for step in written) == sum(50 * r.circuits for r in device.history)


def test_a_fidelity_floor_keeps_kernels_off_a_noisy_device(hybrid: qcascade.HybridModule) -> None:
    device = NoisyExecutor(MANILA, 50, compile_seeds=1, seed=0)
    hybrid.use(Dynamic({"device": device, "local": "statevector"}, min_fidelity=0.5, patience=1))
    for number in range(4):
        values(hybrid, number)
    assert "device" in {run.place for run in hybrid._state.executor.history}  # it is looked at, and slower
    hybrid.use(Dynamic({"device": device, "local": "statevector"}, min_fidelity=0.999))
    before = device.runs
    for number in range(4):
        values(hybrid, number)
    assert device.runs == before and set(hybrid.places.values()) == {"local"}
    hybrid.use(Dynamic({"device": device, "other": "shots"}, min_fidelity=0.999, fidelity={"other": 0.9}))
    with pytest.raises(
        ExecutionError, match=r"no place may run head: device: its fidelity is 0\.\d+, and min_fidelity=0\.999"
    ):
        values(hybrid, 0)


def test_a_place_that_fails_is_left_within_the_step_and_tried_again_later(
    hybrid: qcascade.HybridModule, tmp_path: Path
) -> None:
    cloud, device = service(tmp_path, Faults(refused=1.0))
    exact = [values(hybrid.use("statevector"), number) for number in range(12)]
    dynamic = Dynamic(
        {"device": device, "local": "statevector"},
        objective="first",
        max_seconds=60.0,
        cooldown=3,
        explore=2,
        patience=1,
    )
    hybrid.use(dynamic)
    for number in range(4):
        torch.testing.assert_close(values(hybrid, number), exact[number])  # what failed is not used
    failed = next(s for s in hybrid.switches if "failed" in s.reason)
    assert "takes no jobs now" in failed.reason and failed.after == "local"
    cloud.faults = Faults()
    for number in range(4, 12):
        values(hybrid, number)
    assert hybrid.places["head"] == "device"
    assert cloud.audit()["jobs"] > 0
    hybrid.use(
        Dynamic(
            {"device": service(tmp_path, Faults(refused=1.0))[1], "other": service(tmp_path, Faults(refused=1.0))[1]}
        )
    )
    with pytest.raises(BackendError, match="takes no jobs"):
        values(hybrid, 20)


def test_simulation_in_a_devices_place_counts_as_its_failure(hybrid: qcascade.HybridModule, tmp_path: Path) -> None:
    _, device = service(tmp_path, Faults(refused=1.0), fallback="simulate")
    hybrid.use(Dynamic({"device": device, "local": "statevector"}, objective="first", max_seconds=60.0, explore=None))
    for number in range(4):
        values(hybrid, number)
    assert any("failed (simulated in place of" in s.reason for s in hybrid.switches)
    assert hybrid.places["head"] == "local"


def step(hybrid: qcascade.HybridModule, number: int) -> list[Tensor]:
    hybrid.zero_grad()
    hybrid.train()(ids(number)).square().sum().backward()
    return [p.grad.clone() for p in hybrid.parameters()]


@pytest.mark.parametrize("parts", [None, 2])
def test_gradients_are_those_of_exact_simulation_wherever_a_step_runs(
    hybrid: qcascade.HybridModule, parts: int | None
) -> None:
    exact = [step(hybrid.use("statevector"), number) for number in range(8)]
    places = {"device": ShotsExecutor(None), "local": "statevector"}
    hybrid.use(Dynamic(places, patience=1, explore=1), microbatches=parts)
    seen = set()
    for number in range(8):
        found = step(hybrid, number)
        seen.add(hybrid.places["head"])
        for one, other in zip(found, exact[number], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
        assert len({run.place for run in hybrid.last_run}) == 1
        assert any("gradients" in run.purpose for run in hybrid.last_run)
    assert seen == {"device", "local"}


def test_a_backward_pass_runs_where_its_forward_pass_ran(hybrid: qcascade.HybridModule) -> None:
    exact = step(hybrid.use("statevector"), 1)
    device = ShotsExecutor(None)
    hybrid.use(Dynamic({"local": "statevector", "device": device}, patience=1, explore=None)).train()
    hybrid(ids(0)).sum().backward()
    hybrid.zero_grad()
    output = hybrid(ids(1))  # the device is measured
    assert hybrid.places["head"] == "device"
    hybrid(ids(2)), hybrid(ids(3))
    assert hybrid.places["head"] == "local"
    before = device.runs
    output.square().sum().backward()
    assert device.runs > before and device.history[-1].purpose == "gradients"
    for one, other in zip((p.grad for p in hybrid.parameters()), exact, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_two_kernels_are_placed_by_themselves() -> None:
    torch.manual_seed(0)
    hybrid = qcascade.compile(Words(), (torch.ones(2, 4, dtype=torch.long),), kernels=EMBEDDING_AND_HEAD)
    hybrid.use(Dynamic({"sampled": ShotsExecutor(20, seed=0), "local": "statevector"}), microbatches=2)
    telemetry = Telemetry(hybrid)
    for number in range(3):
        with telemetry.step():
            step(hybrid, number)
    assert set(hybrid.places) == {"embedding", "head"} == {run.kernel for run in hybrid.last_run}
    assert telemetry.steps[0].calls == len([r for r in hybrid.last_run if r.purpose == "values"]) * 2  # with gradients
    assert sum(len(s.switches) for s in telemetry.steps) == len(hybrid.switches)
    other = pickle.loads(pickle.dumps(hybrid))
    assert other.places == hybrid.places
    step(other, 4), step(copy.deepcopy(hybrid), 5)


def test_forecasts_are_the_plans_own_models() -> None:
    """Of a kernel at a target: the fidelity, seconds, price and circuits that the plan states for the same shots."""
    torch.manual_seed(0)
    target = dataclasses.replace(
        MANILA, job_overhead=2.0, shot_overhead=1e-4, price=Price("USD", per_job=0.3, per_shot=0.01)
    )
    made = qcascade.compile(Words(), (ids(0),), kernels=HEAD, include="head", target=target)
    (costs,) = [c.costs for r in made.plan.regions for c in r.candidates if c.kernel == r.kernel is not None]
    device = PytketExecutor(AerBackend(), costs.shots, target=target)
    templates = made.kernels["head"].templates()
    work = [Work(templates["encoder"], 2), Work(templates["reuploader"], 2)]
    forward, training = forecast(work, device, gradients=False), forecast(work, device, gradients=True)
    assert forward.fidelity == costs.fidelity is not None
    assert forward.circuits == costs.circuits_forward
    assert training.circuits == costs.circuits_forward + costs.circuits_backward
    assert (forward.seconds, training.seconds) == pytest.approx((costs.seconds_target, costs.seconds_target_training))
    assert (forward.price, training.price) == pytest.approx((costs.price_forward, costs.price_training))
    with ThreadPoolExecutor(1) as pool:
        cluster = forecast(work, DistributedExecutor(pool, "shots", shots=10), gradients=True)
        assert (cluster.seconds, cluster.price, cluster.fidelity) == (None, 0.0, 1.0)
        noisy = forecast(work, DistributedExecutor(pool, NoisyExecutor(target, None)), gradients=True)
        assert (noisy.seconds, noisy.fidelity) == (None, costs.fidelity)
    assert forecast(work, PytketExecutor(AerBackend(), 10), gradients=True).fidelity is None
    wide = CircuitTemplate(Circuit(6).CX(0, 5), (), ())
    assert "6 qubits and ibm_manila 5" in str(forecast([Work(wide, 1)], device, gradients=True).refused)


def test_a_pool_of_workers_is_a_place(hybrid: qcascade.HybridModule) -> None:
    exact = [step(hybrid.use("statevector"), number) for number in range(4)]
    with ThreadPoolExecutor(1) as pool:
        places = {"cluster": DistributedExecutor(pool, "statevector"), "local": "statevector"}
        hybrid.use(Dynamic(places, min_fidelity=0.9, patience=1, explore=1))
        seen = set()
        for number, expected in enumerate(exact):
            for one, other in zip(step(hybrid, number), expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
            seen |= {run.place for run in hybrid.last_run}
    assert seen == {"cluster", "local"}


def test_models_captured_module_by_module() -> None:
    class Branch(Words):
        def forward(self, numbers: Tensor) -> Tensor:
            return super().forward(numbers) * (2 if numbers.sum() > 0 else 1)

    torch.manual_seed(0)
    made = qcascade.compile(Branch(), (ids(0),), kernels=EMBEDDING_AND_HEAD)
    assert made.plan.capture.method == "modules"
    made.use(Dynamic({"sampled": ShotsExecutor(20), "local": "statevector"}))
    step(made, 1)
    assert set(made.places.values()) <= {"sampled", "local"} and len(made.last_run) > 0


def test_it_is_off_by_default(hybrid: qcascade.HybridModule) -> None:
    for name in ("statevector", "shots"):
        values(hybrid.use(name), 0)
        assert hybrid.switches == () and hybrid.places == {}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"places": {"one": "statevector"}}, "at least two places"),
        ({"places": {"one": "statevector", "two": nn.Linear(1, 1)}}, "place 'two' is Linear"),
        ({"objective": "luck"}, "choose one of seconds, price, first"),
        ({"objective": "first"}, "belong together"),
        ({"max_seconds": 1.0}, "belong together"),
        ({"hysteresis": 0.9}, r"hysteresis=0\.9.*at least 1"),
        ({"patience": 0}, "patience=0"),
        ({"weight": 0.0}, r"weight=0\.0"),
        ({"explore": 0}, "explore=0"),
        ({"cooldown": 0}, "cooldown=0"),
        ({"min_fidelity": 1.5}, r"min_fidelity=1\.5"),
        ({"fidelity": {"three": 1.0}}, "names three; places are one, two"),
    ],
)
def test_bad_settings(options: dict[str, object], what: str) -> None:
    with pytest.raises(ExecutionError, match=what):
        Dynamic(**{"places": {"one": "statevector", "two": "shots"}, **options})  # type: ignore[arg-type]


def test_options_belong_to_the_executors(hybrid: qcascade.HybridModule) -> None:
    with pytest.raises(ExecutionError, match="shots: Dynamic takes no options"):
        hybrid.use(Dynamic({"one": "statevector", "two": "shots"}), shots=10)
    assert dataclasses.asdict(rules_of())["hysteresis"] == 1.5


def test_exporting_with_places_is_refused(hybrid: qcascade.HybridModule) -> None:
    hybrid.use(Dynamic({"one": "statevector", "two": "shots"})).eval()
    with pytest.raises(ExecutionError, match="places are chosen outside of torch"):
        torch.export.export(hybrid, (ids(0),), strict=False)
