"""DDP and FSDP2: two gloo processes train the hybrid as one process does, save and resume.

That torchrun starts such processes is seen in test_distributed.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "loops" / "processes.py"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processes wrote: started once for both kinds."""
    folder = tmp_path_factory.mktemp("processes")
    root = str(WORKER.parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_like_one(kind: str, reports: Path) -> None:
    report = json.loads((reports / f"{kind}.json").read_text())
    assert report["kernels"] == 3
    assert report["names"]
    assert report["losses"] == pytest.approx(report["alone"], rel=5e-3)
    assert report["losses"][-1] < 0.6 * report["losses"][0]
    assert report["difference"] < 5e-3
    assert report["gradients"] < 1e-5
    assert report["resumed"]
    assert report["moved"] > 0.01  # weights did change between checkpoint and end, so that resuming could have failed
