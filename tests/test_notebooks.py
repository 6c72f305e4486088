"""Notebooks run from start to end, and what is kept of their outputs is small and says nothing of the machine it ran on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
KernelManager = pytest.importorskip("jupyter_client").KernelManager

ROOT = Path(__file__).parents[1]
# what `extend` registers would be there for those after it
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"), key=lambda path: (path.stem == "extend", path))
_MACHINE = re.compile(r"(?<![\w.])/(?:work|tmp|home|root|usr|opt|Users|var)/")


# A notebook begins with nothing of the one before but what is imported, which takes longer than many a notebook.
_BEGIN = """%reset -f
import os
from qcascade.executors.device import DeviceExecutor
os.sched_getaffinity = lambda _: {0}  # routing starts no processes of its own
DeviceExecutor.__init__.__kwdefaults__["compile_seeds"] = 1  # as in conftest.py
del os, DeviceExecutor
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    made = KernelManager(kernel_name="python3")
    made.start_kernel(
        cwd=str(tmp_path_factory.mktemp("notebooks")), env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    )
    yield made
    made.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, kernel: KernelManager) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_BEGIN))
    client = nbclient.NotebookClient(notebook, km=kernel, timeout=300)
    client.execute()  # raises where a cell does
    client.kc.stop_channels()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_and_says_nothing_of_a_machine(path: Path) -> None:
    assert path.stat().st_size < 200_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "run `make notebooks`"
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not _MACHINE.search(text), text[:200]


def test_there_are_notebooks() -> None:
    assert {"quickstart", "extend"} <= {path.stem for path in NOTEBOOKS}
