"""What is refused: every way out of a bundle, and every way to cost more than it should."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles import small_hybrid, write_small
from onnx import helper, numpy_helper

from qcascade.bundle import reader
from qcascade.bundle.bundle import load
from qcascade.bundle.strict_json import read_json
from qcascade.bundle.tensors import WeightsFile
from qcascade.errors import BundleError

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Files:
    path = tmp_path_factory.mktemp("bundles") / "small.qcb"
    write_small(path, small_hybrid())
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, files: Files, entries: dict[str, Callable[[zipfile.ZipInfo], None]] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            stored = name == "weights.safetensors"
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            if entries and name in entries:
                entries[name](entry)
            archive.writestr(entry, data)
    return path


def unpack(path: Path, files: Files) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def sealed(files: Files, **changed: bytes) -> Files:
    """With contents changed and the checksums right."""
    files = {**files, **{name.replace("_", "."): data for name, data in changed.items()}}
    manifest = json.loads(files["manifest.json"])
    for entry in manifest["files"]:
        data = files[entry["path"]]
        entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def listed(files: Files, name: str, data: bytes) -> Files:
    """With one more file, that the manifest lists."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"].append({"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)})
    return {**files, name: data, "manifest.json": json.dumps(manifest).encode()}


def changed_manifest(files: Files, change: Callable[[Any], object]) -> Files:
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def changed_model(files: Files, change: Callable[[onnx.ModelProto], object]) -> Files:
    model = onnx.ModelProto.FromString(files["model.onnx"])
    change(model)
    return sealed(files, model_onnx=model.SerializeToString())


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load(path)


def test_the_fixture_loads(good: Files, tmp_path: Path) -> None:
    load(pack(tmp_path / "a.qcb", sealed(good)))
    load(unpack(tmp_path / "a", good))


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "circuits/../../evil", "a\\b", "C:evil", ".hidden", "x" * 201, "é"]
)
def test_paths_out_of_the_bundle(good: Files, tmp_path: Path, name: str) -> None:
    refused(pack(tmp_path / "a.qcb", {**good, name: b"x"}), "a bundle holds plain names")
    refused(pack(tmp_path / "b.qcb", listed(good, name, b"x")), "plain names")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.qcb", "b.qcb"]


def test_links(good: Files, tmp_path: Path) -> None:
    def link(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = 0o120777 << 16

    refused(pack(tmp_path / "a.qcb", good, {"report.json": link}), "report.json is a link")
    outside = tmp_path / "outside.json"
    outside.write_bytes(good["report.json"])
    for number, make in enumerate((os.symlink, os.link)):
        folder = unpack(tmp_path / f"links{number}", good)
        (folder / "report.json").unlink()
        make(outside, folder / "report.json")
        refused(folder, r"report\.json is a link or no plain file")
    folder = unpack(tmp_path / "folder", good)
    os.rename(folder / "circuits", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / "circuits")
    refused(folder, "circuits is a link")
    folder = unpack(tmp_path / "pipe", good)
    (folder / "report.json").unlink()
    os.mkfifo(folder / "report.json")
    refused(folder, "no plain file")
    os.mkfifo(tmp_path / "pipe.qcb")
    refused(tmp_path / "pipe.qcb", "no plain file")


def test_zip_bombs(good: Files, tmp_path: Path) -> None:
    bomb = bytes(20 << 20)
    refused(pack(tmp_path / "a.qcb", sealed(good, report_json=bomb)), "would inflate .* at most 200 times")
    big = os.urandom(64) * (1 << 20) + b"x"  # 64 MB and one byte, compressible
    refused(unpack(tmp_path / "a", sealed(good, report_json=big)), "report.json has 67108865 bytes; at most 67108864")
    data = bytearray(pack(tmp_path / "b.qcb", sealed(good, report_json=bomb[: 1 << 20])).read_bytes())
    place = data.index(b"report.json", data.index(b"PK\x01\x02")) - 46  # its entry in the table of contents
    while data[place : place + 4] != b"PK\x01\x02":
        place = data.index(b"report.json", place + 60) - 46
    data[place + 24 : place + 28] = struct.pack("<I", len(good["report.json"]))  # says less than it holds
    (tmp_path / "b.qcb").write_bytes(data)
    refused(tmp_path / "b.qcb", "report.json")


def test_names_twice_and_files_too_many(good: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "a.qcb", good)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("report.json", b"other")
    refused(path, r"holds 'report\.json' twice")
    refused(pack(tmp_path / "b.qcb", {**good, "Report.json": b"x"}), "twice")
    refused(
        pack(tmp_path / "c.qcb", {**good, "more.txt": b"x"}), r"holds 'more\.txt', which its manifest does not list"
    )
    refused(unpack(tmp_path / "c", {**good, "more.txt": b"x"}), r"holds 'more\.txt', which its manifest does not list")
    monkeypatch.setattr(reader, "MAX_FILES", 5)
    refused(pack(tmp_path / "d.qcb", good), "at most 5 are read")
    refused(unpack(tmp_path / "d", good), "more than 5 files|at most 5")


def test_damage(good: Files, tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.qcb", good).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.qcb").write_bytes(whole[:length])
        refused(tmp_path / "cut.qcb", "zip")
    for name in good:
        if name != "manifest.json":
            refused(
                pack(tmp_path / "b.qcb", {**good, name: good[name][:-1] + b"\x01"}),
                f"{name} does not have the checksum",
            )
            refused(
                pack(tmp_path / "b.qcb", {**good, name: good[name][:-1]}), f"{name} has .* bytes, the manifest lists"
            )
            refused(pack(tmp_path / "b.qcb", {k: v for k, v in good.items() if k != name}), f"no file '{name}'")
    refused(pack(tmp_path / "b.qcb", {k: v for k, v in good.items() if k != "manifest.json"}), "has no manifest.json")
    refused(tmp_path / "none.qcb", "there is no bundle")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no manifest.json")

    def deflated(entry: zipfile.ZipInfo) -> None:
        entry.compress_type = zipfile.ZIP_DEFLATED

    def odd(entry: zipfile.ZipInfo) -> None:
        entry.compress_type = zipfile.ZIP_LZMA

    refused(pack(tmp_path / "c.qcb", good, {"weights.safetensors": deflated}), r"compressed.*store it \(zip -0\)")
    refused(pack(tmp_path / "c.qcb", good, {"report.json": odd}), "compressed by method 14")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "deeper than 100 levels"),
        (b'{"a":' * 100_000, "deeper than 100 levels"),
        (b"[1" + b"0" * 5000 + b"]", "a number has 5001 characters"),
        (b"[1e999]", "the number 1e999 is out of range"),
        (b"[NaN]", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b'{"a": 1, "a": 1}', "the key 'a' stands twice"),
        (b"\xff", "no valid JSON"),
        (b"", "no valid JSON"),
        (b"{} {}", "no valid JSON"),
        (b'"open', "Unterminated string"),
        (b'["\\', "Unterminated string"),
    ],
)
def test_hostile_json(good: Files, tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_json(data, "x.json")
    refused(pack(tmp_path / "a.qcb", {**good, "manifest.json": data}), message)
    refused(pack(tmp_path / "b.qcb", sealed(good, report_json=data)), message)


def test_brackets_in_strings_are_no_depth() -> None:
    assert read_json(json.dumps(["[" * 1000, '"{' * 1000]).encode(), "x") == ["[" * 1000, '"{' * 1000]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m.pop("producer"), "producer"),
        (lambda m: m["inputs"][0].update(dtype="complex256"), "inputs.0.dtype"),
        (lambda m: m["inputs"][0].update(shape=[-1, 6]), "inputs.0.shape"),
        (lambda m: m["inputs"].append(m["inputs"][0]), "inputs: 'x' stands twice"),
        (lambda m: m["kernels"].append(m["kernels"][0]), "stands twice"),
        (lambda m: m["files"].append({**m["files"][0], "path": "Model.onnx"}), "stands twice"),
        (lambda m: m["files"][0].update(path="../x"), "files.0.path"),
        (lambda m: m["files"][0].update(sha256="0"), "files.0.sha256"),
        (lambda m: m["files"][0].update(size=2**70), "files.0.size"),
        (lambda m: m["kernels"][0]["circuits"][0]["designed"].update(pytket="x.json"), "lists no file 'x.json'"),
        (lambda m: m["kernels"][0].update(node="other"), "is of domain 'qcascade' and no kernel"),
        (lambda m: m["kernels"][0].update(function="other"), "no function 'other'|of no kernel"),
        (lambda m: m["kernels"][0].update(inputs=["x", "x"]), "takes .* the manifest says"),
        (lambda m: m["kernels"][0].update(outputs=["y"]), "makes .* the manifest says"),
        (lambda m: m["kernels"][0]["weights"].update(angles="nothing"), "'nothing', which is not stored"),
        (lambda m: m["inputs"][0].update(shape=[None, 7]), "dimension of 6, the manifest says 7"),
        (lambda m: m["outputs"][0].update(dtype="float64"), "is not float64"),
        (lambda m: m["outputs"][0].update(name="z"), r"the outputs \['y'\], the manifest lists \['z'\]"),
        (lambda m: m["kernels"].pop(), "of no kernel that the manifest lists"),
    ],
)
def test_manifests_that_do_not_fit(good: Files, tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    refused(pack(tmp_path / "a.qcb", changed_manifest(good, change)), message)


def test_arguments_that_do_not_fit(good: Files, tmp_path: Path) -> None:
    for changes, message in (
        ({"in_features": 2**40}, "cannot be made"),
        ({"in_features": 9}, r"angles is torch.float32 \[9\]; torch.float32 \[12\] is needed"),
        ({"layers": 10**6}, "cannot be made"),
    ):
        files = changed_manifest(good, lambda m, c=changes: m["kernels"][0]["arguments"].update(c))
        with pytest.raises(BundleError, match=message):
            load(pack(tmp_path / "a.qcb", files)).use("statevector")


def external(model: onnx.ModelProto, key: str, value: str) -> None:
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == key).value = value


def loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, helper.make_node("Loop", ["", ""], [], body=body))


def bomb(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([2**20, 2**20]))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value=shape))
    model.graph.node.insert(1, helper.make_node("ConstantOfShape", ["shape"], ["huge"]))


def inline(model: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[2**30, 2**30], raw_data=b"1234")
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), "is of domain 'com.microsoft'"),
        (lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)), "domain 'com.microsoft'"),
        (lambda m: setattr(m.opset_import[0], "version", 999), "version 999"),
        (lambda m: setattr(m, "ir_version", 99), "IR version 99"),
        (lambda m: setattr(m.graph.node[0], "op_type", "Nonsense"), "no operator of ONNX"),
        (lambda m: setattr(m.functions[0].node[4], "domain", "qcascade"), "is of domain 'qcascade'"),
        (lambda m: m.functions.pop(), "no function"),
        (lambda m: m.functions.append(m.functions[0]), "stands twice"),
        (lambda m: setattr(m.functions[0], "domain", ""), "in domain ''"),
        (lambda m: m.graph.node.append(m.graph.node[1]), "stands twice"),
        (lambda m: m.graph.node.pop(1), "takes 'adapted_0', which nothing before it makes"),
        (lambda m: m.graph.node.insert(0, m.graph.node.pop(2)), "which nothing before it makes"),
        (lambda m: external(m, "location", "/etc/passwd"), "lies in '/etc/passwd'"),
        (lambda m: external(m, "location", "../weights.safetensors"), "lies in"),
        (lambda m: external(m, "offset", "0"), "no tensor of weights.safetensors"),
        (lambda m: external(m, "offset", "-1"), "no number"),
        (lambda m: external(m, "length", "99999999999"), "no tensor of"),
        (lambda m: m.graph.initializer[0].external_data.add(key="checksum", value="x"), "location, offset and length"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40), "no tensor of"),
        (loop, "no operator"),
        (bomb, "more than 2147483648 elements"),
        (inline, "its shape needs"),
    ],
)
def test_models_that_are_not_run(
    good: Files, tmp_path: Path, change: Callable[[onnx.ModelProto], object], message: str
) -> None:
    refused(pack(tmp_path / "a.qcb", changed_model(good, change)), message)


def test_what_is_no_model(good: Files, tmp_path: Path) -> None:
    refused(pack(tmp_path / "a.qcb", sealed(good, model_onnx=b"not a model")), "no ONNX model|IR version")
    refused(pack(tmp_path / "a.qcb", sealed(good, model_onnx=b"")), "IR version 0")
    odd = good["model.onnx"].replace(b"MatMul", b"Mat\xd6ul")
    refused(pack(tmp_path / "a.qcb", sealed(good, model_onnx=odd)), "a name that is no text|no ONNX model")


def header(table: object, data: bytes = b"") -> memoryview:
    text = json.dumps(table).encode()
    return memoryview(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (memoryview(b""), "would have 0 bytes"),
        (memoryview(b"\xff" * 8 + b"{}"), "would have"),
        (header([]), "no object"),
        (header({"a": 1}), "must have dtype"),
        (header({"a": {"dtype": "F31", "shape": [], "data_offsets": [0, 4]}}), "dtype F31"),
        (header({"a": {"dtype": "F32", "shape": [2**61, 2**61], "data_offsets": [0, 4]}}, b"1234"), "its shape needs"),
        (header({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234"), "lists of sizes"),
        (header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"12"), "where .* is next"),
        (header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"12"), "its tensors end"),
        (
            header({k: {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]} for k in "ab"}, b"12"),
            "where .* is next",
        ),
    ],
)
def test_weights_files(data: memoryview, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        WeightsFile(data)


def test_big_tables_of_contents_are_not_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(12_000):
            archive.writestr(zipfile.ZipInfo(f"{number:0200d}"), b"")
    (tmp_path / "a.qcb").write_bytes(stream.getvalue())
    refused(tmp_path / "a.qcb", "is to be read at once")
