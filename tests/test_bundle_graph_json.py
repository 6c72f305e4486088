"""Hostile graph.json: one BundleError or an equal hybrid, and never a word of the file in the Python that fx writes."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bundle_torch import Everything
from torch import Tensor

import qcascade
from qcascade.bundle.hybrid_json import hybrid_json, hybrid_of
from qcascade.bundle.operators import operator_of
from qcascade.bundle.program_json import check_simulation
from qcascade.bundle.weights import stored_tensors
from qcascade.errors import BundleError
from qcascade.hybrid import HybridModule

Document = dict[str, Any]
INJECTIONS = [
    "x\n    import os",
    "x = __import__('os').system('true'); y",
    'a"); __import__("os").system("true"); ("',
    "__import__('os')",
    "x: print(1)",
    "class",
    "torch",
    "self",
    "forward",
    "ｉｍｐｏｒｔ",
    "x\x00",
    "",
    "x" * 5000,
    "__class__",
    "a.__class__.__init__.__globals__",
]


@pytest.fixture(scope="module")
def original() -> tuple[Document, dict[str, Tensor]]:
    hybrid = qcascade.compile(Everything(), (torch.randn(4, 8),), kernels=["amplitude_adapter"], include="head")
    return json.loads(hybrid_json(hybrid)), dict(stored_tensors(hybrid).tensors)


def read(document: Document, tensors: dict[str, Tensor]) -> HybridModule:
    return hybrid_of(json.dumps(document).encode(), {name: tensor.clone() for name, tensor in tensors.items()})


def nodes(document: Document) -> list[dict[str, Any]]:
    return document["evaluation"]["graph"]["nodes"]


def first(document: Document, op: str, target: str = "") -> dict[str, Any]:
    return next(node for node in nodes(document) if node["op"] == op and target in node.get("target", ""))


def renamed(value: Any, old: str, new: str) -> Any:
    """A document with a name changed everywhere."""
    if isinstance(value, dict):
        return {new if key == old else key: renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, old, new) for item in value]
    return new if value == old else value


PLACES: dict[str, Callable[[Document, str], Any]] = {
    "a node": lambda d, text: renamed(d, first(d, "call_function", "linear")["name"], text),
    "an argument": lambda d, text: first(d, "placeholder").update(target=text) or d,
    "a node of an inner graph": lambda d, text: renamed(
        d, next(iter(d["evaluation"]["graph"]["inner"].values()))["nodes"][0]["name"], text
    ),
    "an inner graph": lambda d, text: renamed(d, next(iter(d["evaluation"]["graph"]["inner"])), text),
    "a keyword": lambda d, text: first(d, "call_function", "linear").update(kwargs={text: 1}) or d,
    "a path": lambda d, text: first(d, "get_attr").update(target=text) or d,
    "a kernel": lambda d, text: first(d, "call_module").update(target=text) or d,
    "an operator": lambda d, text: first(d, "call_function", "linear").update(target=text) or d,
    "a forward's argument": lambda d, text: d["interface"]["parameters"][0].update(name=text) or d,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", INJECTIONS, ids=range(len(INJECTIONS)))
def test_names_from_a_file_never_reach_the_source(
    place: str, text: str, original: tuple[Document, dict[str, Tensor]]
) -> None:
    document, tensors = copy.deepcopy(original[0]), original[1]
    changed = PLACES[place](document, text)
    if (
        place == "a forward's argument"
        and text.isidentifier()
        and text.isascii()
        and text != "class"
        and len(text) < 256
    ):
        assert (
            read(changed, tensors).code == read(original[0], tensors).code
        )  # a signature takes it; the graph does not
        return
    with pytest.raises(BundleError):
        read(changed, tensors)


@pytest.mark.parametrize("text", INJECTIONS[:5])
@pytest.mark.parametrize("kind", ["module", "parameter", "buffer"])
def test_names_of_modules(text: str, kind: str, original: tuple[Document, dict[str, Tensor]]) -> None:
    document, tensors = copy.deepcopy(original[0]), original[1]
    root = document["modules"][-1]
    if kind == "module":
        root["children"][0][0] = text
    elif kind == "parameter":
        root.setdefault("parameters", []).append({"name": text, "tensor": "first.weight"})
    else:
        root["buffers"][0]["name"] = text
    with pytest.raises(BundleError):
        read(document, tensors)


def test_a_text_that_is_an_argument_stays_a_text(original: tuple[Document, dict[str, Tensor]]) -> None:
    document, tensors = copy.deepcopy(original[0]), original[1]
    text = "'\"); __import__('os').system('true'); ('\\'\n"
    gather = first(document, "call_function", "linear")
    gather.update(target="aten.einsum.default", args=[text, [gather["args"][0]]], kwargs={})
    source = read(document, tensors).code
    assert [
        n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and "import" in str(n.value)
    ] == [text]
    assert_plain(source)


def assert_plain(source: str) -> None:
    """Nothing but assignments of calls of torch, of parts of self, and subscripts."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        assert not isinstance(node, (ast.Import, ast.ImportFrom, ast.Lambda, ast.ClassDef, ast.Global, ast.Delete))
        if isinstance(node, ast.Name):
            assert node.id not in ("eval", "exec", "__import__", "open", "compile", "globals")
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("__") or node.attr in ("__and__", "__or__")


@pytest.mark.parametrize(
    "name",
    [
        "aten.from_file.default",
        "aten.set_.source_Tensor",
        "aten.as_strided.default",
        "aten.resize_.default",
        "aten._print.default",
        "aten.add.out",
        "aten.add.__class__",
        "aten.__class__.mro",
        "aten.save.default",
        "builtins.eval",
        "os.system",
        "operator.attrgetter",
        "operator.methodcaller",
        "torch.load",
        "torch.hub",
        "math.__dict__",
        "higher_order.while_loop",
        "prims.add.default",
        "qcascade.simulate_backward.default",
    ],
)
def test_operators_outside_the_list(name: str) -> None:
    with pytest.raises(BundleError):
        operator_of(name)


def _add(document: Document, target: str, args: list[Any], **more: Any) -> Document:
    nodes(document).insert(-1, {"name": "extra_1", "op": "call_function", "target": target, "args": args, **more})
    return document


def _sharing(document: Document) -> Document:
    modules = document["modules"]
    root = modules.pop()
    modules.append({"kind": "container", "training": True})
    for _ in range(40):
        last = len(modules) - 1
        modules.append({"kind": "container", "training": True, "children": [["a", last], ["b", last]]})
    root["children"].append(["bomb", len(modules) - 1])
    modules.append(root)
    return document


STRUCTURES: dict[str, Callable[[Document], Any]] = {
    "huge tensor": lambda d: _add(d, "aten.ones.default", [[2**20, 2**20]]),
    "huge range": lambda d: _add(d, "aten.arange.default", [2**40]),
    "used before": lambda d: nodes(d).reverse(),
    "no output": lambda d: nodes(d).pop(),
    "a node twice": lambda d: nodes(d).insert(3, nodes(d)[2]),
    "an argument too many": lambda d: _add(d, "aten.relu.default", [{"node": "x"}, 1]),
    "an argument twice": lambda d: _add(d, "aten.relu.default", [{"node": "x"}], kwargs={"self": {"node": "x"}}),
    "an argument too few": lambda d: _add(d, "aten.relu.default", []),
    "a function's arguments": lambda d: _add(d, "operator.getitem", [{"node": "x"}]),
    "an inner graph elsewhere": lambda d: _add(
        d, "aten.relu.default", [{"node": first(d, "get_attr", "_eval_submod")["name"]}]
    ),
    "deep argument": lambda d: _add(d, "aten.relu.default", [json.loads("[" * 30 + "]" * 30)]),
    "an unknown tag": lambda d: _add(d, "aten.relu.default", [{"pickle": "gASVIAAA"}]),
    "an integer beyond 64 bits": lambda d: _add(d, "aten.relu.default", [2**70]),
    "a kernel's constant": lambda d: first(d, "call_module").update(args=[1, 2]),
    "a module in itself": lambda d: d["modules"][0].update(
        kind="container", name="", attributes={}, children=[["a", 0]]
    ),
    "a module left out": lambda d: d["modules"][-1]["children"].pop(),
    "paths without end": _sharing,
    "a class of elsewhere": lambda d: d["modules"][0].update(name="os.system"),
    "a method hidden": lambda d: d["modules"][0]["attributes"].update(extra_repr="x"),
    "an attribute of nn.Module": lambda d: d["modules"][0]["attributes"].update(_parameters=1),
    "no such tensor": lambda d: d["modules"][0]["parameters"][0].update(tensor="nowhere"),
    "a gradient of integers": lambda d: next(
        b for m in d["modules"] for b in m.get("buffers", []) if b["name"] == "num_batches_tracked"
    ).update(requires_grad=True),
    "another version": lambda d: d.update(version=2),
    "an unknown field": lambda d: d.update(code="print(1)"),
    "another target": lambda d: d["target"].update(version=7),
    "another plan": lambda d: d["plan"].update(regions=[{}]),
    "a region without kernel": lambda d: d["kernels"].update(x="first"),
    "an unknown kernel": lambda d: next(m for m in d["modules"] if m["kind"] == "kernel").update(name="nothing"),
    "endless circuits": lambda d: next(m for m in d["modules"] if m["kind"] == "kernel")["attributes"].update(
        layers=10**8
    ),
    "a wide kernel": lambda d: next(m for m in d["modules"] if m["kind"] == "kernel")["attributes"].update(
        out_features=2**30
    ),
    "other results": lambda d: nodes(d)[-1].update(args=[{"tuple": []}]),
    "one argument less": lambda d: d["interface"].update(inputs=[]),
    "a class as output": lambda d: d["evaluation"]["output"].update(structure={"output": "os.system", "items": 3}),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_what_no_writer_makes(name: str, original: tuple[Document, dict[str, Tensor]]) -> None:
    document = copy.deepcopy(original[0])
    STRUCTURES[name](document)
    with pytest.raises(BundleError):
        read(document, original[1])


@pytest.mark.parametrize("name", ["first.weight", "head.quantum.angles", "norm.num_batches_tracked"])
def test_missing_tensors(name: str, original: tuple[Document, dict[str, Tensor]]) -> None:
    with pytest.raises(BundleError, match=name.rpartition(".")[2]):
        read(original[0], {key: value for key, value in original[1].items() if key != name})


def test_configs_are_bounded(original: tuple[Document, dict[str, Tensor]]) -> None:
    for config in (
        {"model_type": "bert", "num_labels": 10**9},
        {"model_type": "bert", "num_hidden_layers": 2**40},
        {"model_type": "nothing"},
        {"model_type": "bert", "auto_map": {"AutoModel": "x.y"}},
        {"model_type": "bert", "__class__": "x"},
        {"model_type": ["bert"]},
    ):
        with pytest.raises(BundleError):
            read({**original[0], "config": config}, original[1])


def test_programs_are_checked_index_by_index() -> None:
    good = {
        "version": 1, "qubits": 2, "data": 1, "weights": 1,
        "layers": [["local", [[["Y", 0]], []]], ["diagonal", [[1, 3]]], ["linear", [1, 3]]],
        "rows": [0, 1], "columns": [0, 1], "values": [1.0, 1.0], "constants": [0.0, 0.0], "phase": None,
    }  # fmt: skip
    check_simulation(json.dumps(good), "Z0 X0Y1 I")
    for change in (
        {"qubits": 40}, {"qubits": 3}, {"layers": [["local", [[["Y", 2]], []]]]}, {"layers": [["diagonal", [[1, 4]]]]},
        {"layers": [["linear", [1, 1]]]}, {"layers": [["linear", [1, 4]]]}, {"rows": [0, 2]}, {"columns": [0, 2]},
        {"values": [1.0]}, {"phase": 2}, {"phase": -1}, {"layers": [["other", []]]}, {"weights": 2**30}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises(BundleError):
            check_simulation(json.dumps({**good, **change}), "Z0")
    for measured in ("Z2", "Z0Z0", "", "Q0", "Z0  Z1", 3):
        with pytest.raises(BundleError):
            check_simulation(json.dumps(good), measured)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.sampled_from([2**31, 2**63, -(2**70), 0.5, 1e300]),
    st.sampled_from(INJECTIONS[:10]), st.text(max_size=4), st.just([]), st.just({}), st.just([[1]]),
    st.sampled_from([{"node": "x"}, {"tuple": [1]}, {"dtype": "int8"}, {"float": "nan"}, {"device": "cuda:7"}]),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_is_an_error_or_a_hybrid(data: st.DataObject, original: tuple[Document, dict[str, Tensor]]) -> None:
    document = copy.deepcopy(original[0])
    for _ in range(data.draw(st.integers(1, 2))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            deeper = isinstance(place[key], (dict, list)) and data.draw(st.integers(0, 9))
            if deeper:
                place = place[key]
                continue
            action = data.draw(st.sampled_from(["value", "remove", "double"]))
            if action == "value":
                place[key] = copy.deepcopy(
                    data.draw(VALUES)
                )  # hypothesis gives the same list again, which could hold itself
            elif action == "remove":
                del place[key]
            elif isinstance(place, list):
                place.insert(key, copy.deepcopy(place[key]))
            break
    try:
        hybrid = read(document, original[1])
    except BundleError:
        return
    assert_plain(hybrid.code)
    again = hybrid_of(hybrid_json(hybrid), dict(stored_tensors(hybrid).tensors))
    assert hybrid_json(again) == hybrid_json(hybrid)
