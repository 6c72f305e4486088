"""Targets against Qiskit's, pytket's and networkx's own readings, and by law: round trips, what is dead is gone."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from statistics import median

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket.architecture import Architecture, SquareGrid
from pytket.backends.backendinfo import BackendInfo
from pytket.circuit import Node, OpType
from pytket.extensions.qiskit import AerBackend
from pytket.extensions.qiskit.backends.ibm import IBMQBackend
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import average_gate_fidelity
from qiskit_aer import AerSimulator
from qiskit_aer.noise import depolarizing_error
from qiskit_ibm_runtime import fake_provider
from torch import nn

import qcascade
from qcascade.cli import main
from qcascade.errors import TargetError
from qcascade.targets import Gate, Price, QubitProperties, Target, get_target, grid, ibm, line, targets
from qcascade.targets.summary import summaries

SNAPSHOTS = {"ibm_torino": 22, "ibm_marrakesh": 26, "ibm_fez": 14}  # directed two-qubit entries of error 0.5 or more


def sample(**changes: object) -> Target:
    gates = [Gate("rz", (q,), 0.0, 0.0) for q in range(4)] + [Gate("sx", (q,), 1e-4, 3e-8) for q in range(4)]
    gates += [Gate("cz", pair, 4e-3, 7e-8) for pair in ((0, 1), (1, 0), (1, 2), (2, 3))]
    fields: dict[str, object] = {
        "name": "sample",
        "description": "four in a row",
        "qubits": 4,
        "gates": tuple(gates),
        "properties": (QubitProperties(0.01, 1e-6, 1e-4, 8e-5),) * 4,
        "price": Price("USD", per_second=1.6),
        "calibrated": "2026-11-21",
    }
    return Target(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def devices() -> dict[str, Target]:
    return {name: get_target(name) for name in targets() if name not in ("line-N", "grid-RxC")}


def test_catalogue(devices: dict[str, Target]) -> None:
    asked = {"torino", "boston", "brisbane", "marrakesh", "fez", "pittsburgh", "kingston", "nighthawk"}
    assert {f"ibm_{name}" for name in asked} <= set(devices)
    assert {"ideal", "quantinuum_h1_1", "quantinuum_h2_1", "quantinuum_h2_2", "ionq_aria_1", "ionq_forte_1"} <= set(
        devices
    )
    assert {"ibm_kyoto", "ibm_armonk", "ibm_fractional"}.isdisjoint(devices)
    for name, target in devices.items():
        assert target.name == name
        if name != "ideal":
            assert target.source
            assert (target.median_error() or 1.0) < 0.05
            assert target.price is not None and target.price.source
        if name.startswith("ibm_"):
            assert target.calibrated is not None
            assert (target.median_readout_error() or 1.0) < 0.2
    assert "not typical" in devices["ibm_nighthawk"].description


def test_every_entry_survives_json(devices: dict[str, Target], tmp_path: Path) -> None:
    for target in devices.values():
        again = Target.from_json(target.to_json())
        assert again == target
        assert hash(again) == hash(target)
    file = tmp_path / "device.json"
    file.write_text(devices["ibm_torino"].to_json(indent=1))
    assert get_target(str(file)).digest == devices["ibm_torino"].digest
    assert get_target(file) == devices["ibm_torino"]


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_snapshots_are_qiskits_less_what_is_dead(name: str) -> None:
    described = getattr(fake_provider, f"Fake{name.removeprefix('ibm_').capitalize()}")().target
    target = get_target(name)
    given_errors = {place: figures.error for place, figures in described["cz"].items()}
    dead = {place for place, error in given_errors.items() if error >= 0.5}
    assert len(dead) == SNAPSHOTS[name]
    pairs = {tuple(sorted(place)) for place in dead}
    readouts = {q: described["measure"][(q,)].error for q in range(described.num_qubits)}
    unreadable = {q for q, error in readouts.items() if error >= 0.5}
    unrotatable = {q for q in readouts if any(described[g][(q,)].error >= 0.5 for g in ("sx", "x"))}
    pairs |= {tuple(sorted(place)) for place in given_errors if not (unreadable | unrotatable).isdisjoint(place)}
    assert set(target.dead_edges) == pairs
    assert set(target.dead_qubits) == unreadable | unrotatable
    alive = {place: error for place, error in given_errors.items() if tuple(sorted(place)) not in pairs}
    kept = {gate.qubits: gate for gate in target.gates if gate.name == "cz"}
    assert {place: gate.error for place, gate in kept.items()} == alive  # both directions stay, or both are gone
    assert all(gate.seconds == described["cz"][place].duration for place, gate in kept.items())
    assert target.median_error() == median(alive.values())
    for q in target.nodes:
        assert target.properties[q].readout_error == readouts[q]
        assert target.properties[q].t1 == described.qubit_properties[q].t1
    graph = nx.Graph(list(alive))
    graph.add_nodes_from(target.nodes)
    assert target.largest_component == tuple(sorted(max(nx.connected_components(graph), key=len)))
    assert len(target.largest_component) < len(target.nodes)  # all three are cut; routing has to know


@pytest.mark.parametrize("name", ["ibm_torino", "ibm_cairo", "quantinuum_h1_1", "line-5"])
def test_through_qiskit_and_back(name: str) -> None:
    target = get_target(name)
    described = target.to_qiskit()
    again = Target.from_qiskit(described, name=name)
    assert set(again.gates) == set(target.gates)
    assert again.edges == target.edges
    assert [again.properties[q] for q in target.nodes] == [
        (target.properties or (QubitProperties(),) * 99)[q] for q in target.nodes
    ]


@pytest.mark.parametrize("device", ["Torino", "Brisbane", "Marrakesh"])
def test_pytket_says_the_same_as_qiskit(device: str) -> None:
    backend = getattr(fake_provider, f"Fake{device}")()
    info = IBMQBackend._get_backend_info(backend.configuration(), backend.properties())
    reported, target = info.all_edge_gate_errors, Target.from_pytket(info)
    first, second = next(pair for pair in reported if pair[::-1] in reported)
    kind = OpType.ECR if device == "Brisbane" else OpType.CZ
    ratio = reported[first, second][kind] / reported[second, first][kind]
    assert max(ratio, 1 / ratio) == pytest.approx(2)  # pytket-qiskit's invention, which must not come through
    expected = Target.from_qiskit(backend)
    assert {(g.name, g.qubits): g.error for g in target.gates} == pytest.approx(
        {(g.name, g.qubits): g.error for g in expected.gates}
    )
    assert (target.dead_qubits, target.dead_edges) == (expected.dead_qubits, expected.dead_edges)
    assert target.median_readout_error() == pytest.approx(expected.median_readout_error())


def test_pytket_without_errors_and_without_anything() -> None:
    target = Target.from_pytket(AerBackend(n_qubits=5), name="plain")
    assert target.all_to_all and not target.calibrated_gates
    assert {"cx", "rz", "rzz"} <= set(target.operations)
    silent = BackendInfo("nothing", None, "0", None, {OpType.CX, OpType.Rx})
    for backend, message in (
        (object(), "object says nothing of itself"),
        (silent, "nothing has no architecture"),
        (BackendInfo("square", None, "0", SquareGrid(2, 2), {OpType.CX, OpType.Rx}), "more than one dimension"),
    ):
        with pytest.raises(TargetError, match=message):
            Target.from_pytket(backend)


def test_pytket_reads_each_direction_once() -> None:
    errors = {(Node(0), Node(1)): {OpType.CZ: 0.01}, (Node(1), Node(0)): {OpType.CZ: 0.02}}
    info = BackendInfo(
        "two",
        "two",
        "0",
        Architecture([(0, 1), (1, 2)]),
        {OpType.CZ, OpType.SX, OpType.Rz},
        all_edge_gate_errors=errors,
        all_readout_errors={Node(q): [[0.98, 0.02], [0.04, 0.96]] for q in range(3)},
    )
    target = Target.from_pytket(info)
    assert [(g.qubits, g.error) for g in target.gates if g.name == "cz"] == [((0, 1), 0.01)]
    assert target.dead_edges == ((1, 2),)  # coupled, and no error is reported
    assert target.median_readout_error() == pytest.approx(0.03)


def test_other_qiskit_backends() -> None:
    target = Target.from_qiskit(GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], seed=1))
    assert target.edges == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert Target.from_json(target.to_json()) == target
    for nothing, message in ((AerSimulator(), "names no gate"), (object(), "object has no qiskit.transpiler.Target")):
        with pytest.raises(TargetError, match=message):
            Target.from_qiskit(nothing)


def test_published_depolarising_parameters_are_converted() -> None:
    for name, one, two in (("Aria-1", 0.0005, 0.0133), ("Forte-1", 0.0002666666666666667, 0.004949333333333333)):
        target = get_target(name)
        assert target.median_error(1) == pytest.approx(1 - average_gate_fidelity(depolarizing_error(one, 1)))
        assert target.median_error(2) == pytest.approx(1 - average_gate_fidelity(depolarizing_error(two, 2)))


@pytest.mark.parametrize(
    ("alias", "name"), [("H1-1", "quantinuum_h1_1"), ("h2-2", "quantinuum_h2_2"), ("ARIA-1", "ionq_aria_1")]
)
def test_plain_names(alias: str, name: str) -> None:
    assert get_target(alias) == get_target(name)
    assert get_target(name).all_to_all


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6))
def test_grids_and_lines_are_networkxs(rows: int, columns: int) -> None:
    made = get_target(f"grid-{rows}x{columns}")
    assert nx.is_isomorphic(made.graph, nx.grid_2d_graph(rows, columns))
    assert nx.utils.graphs_equal(nx.Graph(line(rows).edges), nx.Graph(list(nx.path_graph(rows).edges)))
    assert made.median_error() is None and not made.calibrated_gates


def test_planning_with_assumed_figures() -> None:
    target = grid(3, 4, error=1e-3, seconds=5e-8, readout_error=2e-3, t1=1e-3)
    assert (target.median_error(), target.median_readout_error()) == (1e-3, 2e-3)
    assert len(target.nodes) == 12  # one-qubit errors are unknown, not dead
    assert target.places["rz", (0,)].error == 0.0
    with pytest.raises(TargetError, match="no figure is called speed; error, one_qubit_error"):
        line(3, speed=1.0)  # type: ignore[call-arg]


def test_unreported_and_disconnected() -> None:
    gates = [*sample().gates]
    unreported = [dataclasses.replace(g, error=None) if g.qubits == (1, 2) else g for g in gates]
    cut = sample(gates=tuple(unreported))
    assert cut.dead_edges == ((1, 2),)
    assert cut.largest_component == (0, 1)
    assert sorted(map(sorted, nx.connected_components(cut.graph))) == [[0, 1], [2, 3]]
    unread = sample(properties=(*(QubitProperties(0.01),) * 3, QubitProperties()))
    assert unread.dead_qubits == (3,)
    framed = sample(gates=tuple(g for g in gates if (g.name, g.qubits) != ("sx", (0,))))
    assert framed.dead_qubits == (0,)  # rz alone rotates nothing
    one_way = sample(gates=tuple(dataclasses.replace(g, error=0.6) if g.qubits == (1, 0) else g for g in gates))
    assert one_way.dead_edges == ((0, 1),)
    with pytest.raises(TargetError, match="no usable qubit"):
        sample(properties=(QubitProperties(0.5),) * 4)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is empty"),
        ({"qubits": 0, "properties": ()}, "0 qubits; at least 1"),
        ({"qubits": 3, "properties": ()}, r"gate rz is on \(3,\), of 3 qubits"),
        ({"properties": (QubitProperties(),)}, "4 qubits and 1 entries of properties"),
        ({"gates": (Gate("cz", (1, 1)),)}, "name each qubit once"),
        ({"gates": (Gate("x", (1,)), Gate("x", (1,)))}, "listed twice"),
        ({"gates": (Gate("", (1,)),)}, "has no name"),
        ({"gates": (Gate("x", (1,), NAN),)}, r"the error of x on \(1,\) is nan; a number from 0 to 1"),
        ({"gates": (Gate("x", (1,), 1.5),)}, "is 1.5; a number from 0 to 1"),
        ({"gates": (Gate("x", (1,), 0.1, INF),)}, r"the seconds of x on \(1,\) is inf; a finite number of seconds"),
        ({"properties": (QubitProperties(t1=-1.0),) * 4}, "t1 of qubit 0 is -1.0"),
        ({"properties": (QubitProperties(NAN),) * 4}, "readout_error of qubit 0 is nan"),
        ({"shot_overhead": -1.0}, "shot_overhead is -1.0"),
        ({"job_overhead": NAN}, "job_overhead is nan"),
        ({"parallel_two_qubit_gates": 0}, "parallel_two_qubit_gates is 0"),
        ({"price": Price("", 1.0)}, "no currency"),
        ({"price": Price("USD", per_shot=-0.1)}, "per_shot of the price is -0.1; a finite number from 0"),
        ({"calibrated": "yesterday"}, "calibrated is 'yesterday'; a day as in"),
        ({"dead_edges": ((2, 1),)}, r"dead_edges names \(2, 1\)"),
    ],
)
def test_wrong_figures_are_one_clear_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        sample(**changes)
    whole = dataclasses.asdict(sample()) | {
        key: [dataclasses.asdict(entry) for entry in value]
        if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0])
        else dataclasses.asdict(value)  # type: ignore[call-overload]
        if dataclasses.is_dataclass(value)
        else value
        for key, value in changes.items()
    }
    with pytest.raises(TargetError, match=message):
        Target.from_json(json.dumps({"version": 1, "target": whole}))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(version=2), "version 2; version 1 is accepted"),
        (lambda d: d.pop("target"), "target: Field required"),
        (lambda d: d["target"].pop("name"), "target.name: Field required"),
        (lambda d: d["target"].update(colour="red"), "target.colour: "),
        (lambda d: d["target"]["gates"][2].update(colour="red"), "target.gates.2.colour: "),
        (lambda d: d["target"].update(qubits="4"), "target.qubits: Input should be a valid integer"),
        (lambda d: d["target"]["gates"][3].update(error="low"), "target.gates.3.error: "),
        (lambda d: d["target"]["properties"][1].update(t1=[1]), "target.properties.1.t1: "),
        (lambda d: d["target"]["price"].pop("currency"), "target.price.currency: Field required"),
    ],
)
def test_wrong_documents_name_the_field(edit: object, message: str) -> None:
    document = json.loads(sample().to_json())
    edit(document)  # type: ignore[operator]
    with pytest.raises(TargetError, match=message):
        Target.from_json(json.dumps(document))


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "cut.json").write_text(sample().to_json()[:-5])
    for name, message in (
        ("absent.json", "No such file"),
        ("binary.json", "cannot be read"),
        ("cut.json", "no valid target"),
        (".json", "cannot be read"),
    ):
        with pytest.raises(TargetError, match=message):
            get_target(tmp_path / name)
    for name in ("line-0", "line-N", "grid-3", "line-999999", "grid-0x4"):
        with pytest.raises(TargetError, match=r"line-12|1 to 4096"):
            get_target(name)
    with pytest.raises(TargetError, match="left out: its snapshot reports error 1"):
        get_target("ibm_kyoto")
    with pytest.raises(TargetError, match="target is int; give a name"):
        get_target(3)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.none() | st.floats(0, 1), min_size=5, max_size=5),
    st.lists(st.none() | st.floats(0, 1), min_size=4, max_size=4),
)
def test_the_door_opens_once(readouts: list[float | None], errors: list[float | None]) -> None:
    gates = (*(Gate("x", (q,), 0.0) for q in range(5)), *(Gate("cz", (q, q + 1), e) for q, e in enumerate(errors)))
    try:
        target = Target("t", "d", 5, gates, tuple(QubitProperties(r) for r in readouts))
    except TargetError:
        assert all(r is None or r >= 0.5 for r in readouts)
        return
    assert all(g.error is None or g.error < 0.5 for g in target.gates)
    assert Target.from_json(target.to_json()) == target
    assert set(target.edges) | set(target.dead_edges) == {(q, q + 1) for q in range(4)}
    assert dataclasses.replace(target, description="again").edges == target.edges


def test_equality_and_digest_do_not_depend_on_the_order_of_gates() -> None:
    turned = sample(gates=sample().gates[::-1])
    assert turned == sample()
    assert turned.digest == sample().digest


SMALL = {"reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1}}


def test_plans_take_names_files_and_targets(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(line(6, error=1e-3, name="mine").to_json())
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    for target, name in ((str(file), "mine"), (line(6), "line-6"), ("grid-2x3", "grid-2x3")):
        assert qcascade.plan(model, target=target, kernels=SMALL).target == name


def test_a_package_adds_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab.py").write_text(
        "from qcascade.targets import line\nchain = line(3, name='lab_chain')\nwrong = 3\n"
    )
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qcascade.targets]\nlab_chain = lab:chain\nlab_wrong = lab:wrong\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "lab_chain" in targets()
    assert get_target("lab_chain").qubits == 3
    with pytest.raises(TargetError, match="registered as target 'lab_wrong' is int"):
        get_target("lab_wrong")


def test_what_is_kept_may_be_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCASCADE_CACHE_DIR", str(tmp_path))
    made = ibm.load("ibm_manila")
    (kept,) = (tmp_path / "targets").iterdir()
    kept.write_text("{")
    assert ibm.load("ibm_manila") == made == Target.from_json(kept)
    kept.unlink()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QCASCADE_CACHE_DIR", str(tmp_path / "file"))
    assert ibm.load("ibm_manila") == made  # a folder that cannot be written only costs time


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["qcascade", "targets", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    return capsys.readouterr().out


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [text.split("\t") for text in run(capsys, monkeypatch).splitlines()]
    assert {len(row) for row in rows} == {7}
    assert [row[0] for row in rows] == list(targets())
    listed = json.loads(run(capsys, monkeypatch, "--format", "json"))
    assert [one["name"] for one in listed] == [one.name for one in summaries()]
    shown = run(capsys, monkeypatch, "ibm_torino")
    assert "132 of 133 usable; removed: 86" in shown and "15-19, 19-20" in shown and "1.6 USD a second" in shown
    assert Target.from_json(run(capsys, monkeypatch, "ibm_torino", "--format", "json")) == get_target("ibm_torino")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    table = run(capsys, monkeypatch)
    assert "two-qubit error" in table and "ibm_torino" in table and "\t" not in table


def test_an_ibm_device_says_where_its_seconds_are_from() -> None:
    target = get_target("ibm_torino")
    assert (target.job_overhead, target.shot_overhead) == (2.0, 0.00025)
    assert "2 s a job, IBM's guide" in target.source
    assert "0.00025 s between shots, the snapshot's default_rep_delay" in target.source
