"""DDP and FSDP2: two gloo processes that torchrun starts train the hybrid as one process does, save and resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "loops" / "processes.py"


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_like_one(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    root = str(WORKER.parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(WORKER), kind, str(out)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(out.read_text())
    assert report["kernels"] == 3
    assert report["names"]
    assert report["losses"] == pytest.approx(report["alone"], rel=5e-3)
    assert report["losses"][-1] < 0.6 * report["losses"][0]
    assert report["difference"] < 5e-3
    assert report["resumed"]
    assert report["moved"] > 0.01  # weights did change between checkpoint and end, so that resuming could have failed
