"""The command line in real processes and in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qcascade.cli import main

MODEL = "torch.nn:TransformerEncoderLayer"
FILE = """
from torch import nn
model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
number = 3
def make():
    return model
"""


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["qcascade", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(FILE)
    return str(tmp_path / "net.py")


@pytest.mark.parametrize("name", ["model", "make"])
def test_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str, name: str) -> None:
    code, out, _ = run(capsys, monkeypatch, "report", f"{file}:{name}")
    assert code == 0
    assert out.startswith("2 regions found, 1 offloaded, ")
    assert "Kept classical\n  0 (linear" in out
    code, out, _ = run(capsys, monkeypatch, "report", f"{file}:{name}", "--format", "json", "--max-qubits", "2")
    parsed = json.loads(out)
    assert parsed["schema_version"] == 1
    assert parsed["summary"]["offloaded"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["report", "no.such.module:x"], 1, "cannot be imported"),
        (["report", "nothing"], 1, "write package.module:name"),
        (["report", "FILE:number"], 1, "is int"),
        (["report", "..:model"], 1, "write package.module:name"),
        (["report", ".:model"], 1, "write package.module:name"),
        (["report", "FILE:model", "--seed", "-99999999999999999999999"], 2, "a whole number from 0 to 2**63 - 1"),
        (["report", "FILE:missing"], 1, "has no 'missing'"),
        (["report", "absent.py:x"], 1, "no file absent.py"),
        (["report", "torch.nn:Linear"], 1, "cannot be called without arguments"),
        (["report", "FILE:model", "--target", "nowhere"], 2, "unknown target 'nowhere'; known: grid-RxC,"),
        (["report", "FILE:model", "--target", "absent.json"], 2, "absent.json cannot be read: No such file"),
        (["targets", "ibm_torinno"], 2, "did you mean 'ibm_torino'?"),
        (["targets", "--format", "html"], 2, "text, json"),
        (["report", "FILE:model", "--objective", "fame"], 2, "choose one of"),
        (["report", "FILE:model", "--format", "poem"], 2, "text, json"),
        (["report"], 2, "Missing argument"),
        (["demo", "--data", "absent"], 1, "must hold train.tsv"),
    ],
)
def test_failures(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    got, out, err = run(capsys, monkeypatch, *(a.replace("FILE", file) for a in arguments))
    assert got == code
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err + out


def test_demo_on_texts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["good", "fine", "bad", "poor"]
    lines = [f"a {words[i % 4]} film number {i % 7}\t{int(i % 4 < 2)}" for i in range(96)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines))
    code, out, _ = run(capsys, monkeypatch, "demo", "--data", str(tmp_path), "--epochs", "1")
    assert code == 0
    assert "classical  test accuracy" in out
    assert "hybrid     test accuracy" in out
    (tmp_path / "train.tsv").write_text("no label here")
    assert run(capsys, monkeypatch, "demo", "--data", str(tmp_path))[0] == 1


def test_real_process() -> None:
    """`python -m qcascade targets`; and names are known before anything slow is loaded, which is said first."""
    code = """
import runpy, sys, qcascade
print(len(qcascade.targets()) > 50, "qiskit" in sys.modules, file=sys.stderr)
sys.argv = ["qcascade", "targets"]
runpy.run_module("qcascade", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "\nideal\t\t\t\t\t\tno noise" in done.stdout
    assert "\nibm_torino\t133\tcz\t0.00408\t0.0229\t2025-02-26\t" in done.stdout
    assert done.stderr == "True False\n"


def test_demo_reads_sst2(sst2: Path) -> None:
    from qcascade.demo import read_texts

    task = read_texts(sst2)
    assert (len(task.train[0]), len(task.test[0]), task.classes) == (6920, 1821, 2)
    assert int(task.train[0].max()) == task.vocabulary - 1
