"""The writer: the same bytes for the same contents, and nothing under the name unless all of it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
import time
import zipfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from qcascade.bundle.archive import ALIGNMENT, write_bundle
from qcascade.bundle.manifest import Manifest, TargetEntry, migrated, read_manifest
from qcascade.bundle.reader import open_archive
from qcascade.bundle.strict_json import write_json
from qcascade.errors import BundleError

MANIFEST = Manifest(producer="test", model="Tiny", target=TargetEntry(name="ideal"))
WEIGHTS = bytes(range(256)) * 40


def contents(**more: object) -> dict:
    return {
        "weights.safetensors": lambda write: [write(WEIGHTS[i : i + 1000]) for i in range(0, len(WEIGHTS), 1000)],
        "report.json": b"{}",
        "model.onnx": b"model" * 100,
        "circuits/a.json": b"[]",
        **more,
    }


@pytest.mark.parametrize("name", ["x.qcb", "x"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    written = write_bundle(tmp_path / name, MANIFEST, contents())
    with open_archive(tmp_path / name) as archive:
        assert archive.manifest == written
        assert archive.read("model.onnx") == b"model" * 100
        assert bytes(archive.weights()) == WEIGHTS
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_same_contents_are_the_same_bytes_in_any_order_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "a.qcb", MANIFEST, contents())
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    write_bundle(tmp_path / "b.qcb", MANIFEST, dict(reversed(contents().items())))
    assert (tmp_path / "a.qcb").read_bytes() == (tmp_path / "b.qcb").read_bytes()


def test_other_zip_programs_read_it_and_weights_are_aligned(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.qcb", MANIFEST, contents())
    with zipfile.ZipFile(tmp_path / "a.qcb") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*sorted(contents()), "manifest.json"]
        entry = archive.getinfo("weights.safetensors")
        assert entry.compress_type == zipfile.ZIP_STORED
    data = (tmp_path / "a.qcb").read_bytes()
    assert data.index(WEIGHTS) % ALIGNMENT == 0


def test_an_older_bundle_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    for name in ("a.qcb", "a"):
        write_bundle(tmp_path / name, MANIFEST, contents())
        write_bundle(tmp_path / name, MANIFEST, contents(**{"report.json": b"[1]"}))
        with open_archive(tmp_path / name) as archive:
            assert archive.read("report.json") == b"[1]"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.qcb"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(BundleError, match="other things"):
        write_bundle(tmp_path / "mine", MANIFEST, contents())
    with pytest.raises(BundleError, match="is a file"):
        write_bundle(tmp_path / "a.qcb", MANIFEST, contents(), form="directory")
    with pytest.raises(BundleError, match="is a directory"):
        write_bundle(tmp_path / "mine", MANIFEST, contents(), form="zip")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("name", ["x.qcb", "x"])
def test_a_failure_half_way_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    def fails(write: object) -> None:
        write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / name, MANIFEST, contents(**{"weights.safetensors": fails}))
    assert list(tmp_path.iterdir()) == []
    write_bundle(tmp_path / name, MANIFEST, contents())
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / name, MANIFEST, contents(**{"weights.safetensors": fails}))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    open_archive(tmp_path / name).close()


@pytest.mark.parametrize("name", ["x.qcb", "x"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(BundleError, match="cannot be written: File too large"):
            write_bundle(tmp_path / name, MANIFEST, contents())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def _writes_half(path: Path, half: Connection) -> None:
    """What the child does: it stops in the middle of the weights, for good."""

    def weights(write: Callable[[bytes], object]) -> None:
        write(b"x" * 100_000)
        half.send("half")
        signal.pause()

    write_bundle(path, MANIFEST, contents(**{"weights.safetensors": weights}))


@pytest.mark.parametrize("name", ["x.qcb", "x"])
def test_a_kill_in_the_middle_leaves_nothing_under_the_name(tmp_path: Path, name: str) -> None:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=_writes_half, args=(tmp_path / name, there))
    process.start()
    assert here.poll(60) and here.recv() == "half"
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / name).exists()
    with pytest.raises(BundleError, match="there is no bundle"):
        open_archive(tmp_path / name)


def test_permissions_are_the_umasks(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bundle(tmp_path / "x.qcb", MANIFEST, contents())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.qcb").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "a//b", ".hidden", "manifest.json", "a\\b", "", "x" * 300, "é"]
)
def test_names_that_leave_the_bundle_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="no path for a file of a bundle"):
        write_bundle(tmp_path / "x.qcb", MANIFEST, contents(**{name: b""}))
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lists no file 'model\.onnx'"):
        write_bundle(tmp_path / "x.qcb", MANIFEST, {"weights.safetensors": b"", "report.json": b""})
    assert list(tmp_path.iterdir()) == []


def test_versions() -> None:
    document = MANIFEST.model_dump(mode="json")
    for newer in ("2.0", "1.1"):
        with pytest.raises(BundleError, match=f"schema version {newer}.*pip install --upgrade qcascade.*test"):
            read_manifest(write_json({**document, "schema_version": newer}))
    with pytest.raises(BundleError, match=r"schema version 0\.3; 1\.0 can be read"):
        read_manifest(write_json({**document, "schema_version": "0.3"}))
    for odd in (None, 1, "one", "1", "99999.0", ["1.0"]):
        with pytest.raises(BundleError, match="schema_version is"):
            read_manifest(write_json({**document, "schema_version": odd}))


def test_older_documents_are_migrated_step_by_step() -> None:
    old = {"schema_version": "0.8", "producer": "old", "title": "Tiny", "device": "ideal"}
    steps = {
        "0.8": ("0.9", lambda d: {**{k: v for k, v in d.items() if k != "title"}, "model": d["title"]}),
        "0.9": ("1.0", lambda d: {"producer": d["producer"], "model": d["model"], "target": {"name": d["device"]}}),
    }
    document = migrated(old, steps)
    assert read_manifest(write_json(document), check_files=False).target.name == "ideal"
    with pytest.raises(BundleError, match=r"0\.8 cannot be migrated.*title"):
        migrated({"schema_version": "0.8"}, steps)
    assert old["schema_version"] == "0.8"
