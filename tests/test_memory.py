"""Free memory: the least of the machine's and the container's, for bundles and for the engine."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from pytket import Circuit

from qcascade import memory
from qcascade.bundle.memory import available
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.engine import compiled, lower
from qcascade.errors import ExecutionError


def container(folder: Path, limit: str, used: int, statistics: str) -> tuple[tuple[str, str, str], ...]:
    (folder / "max").write_text(f"{limit}\n")
    (folder / "current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(statistics)
    return ((str(folder / "max"), str(folder / "current"), "inactive_file"),)


def test_a_containers_limit_holds_for_bundles_and_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = container(tmp_path, str(2**28), 3 * 2**26, f"anon 1\ninactive_file {2**25}\n")
    monkeypatch.setattr(memory, "_GROUPS", groups)
    assert memory.free_memory() == available() == 2**26 + 2**25
    parity = Expectations((tuple((qubit, "Z") for qubit in range(22)),))
    simulation = compiled.simulation(lower(CircuitTemplate(Circuit(22).H(0), (), ())), parity)
    with pytest.raises(ExecutionError, match=r"needs .* GiB and 0\.1 GiB is free"):
        simulation.check_memory(8, 8, loaded=False, training=False)
    monkeypatch.setattr(memory, "_GROUPS", container(tmp_path, str(2**28), 2**29, ""))
    assert memory.free_memory() == 0


def test_without_a_limit_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("max", str(2**62)):
        monkeypatch.setattr(memory, "_GROUPS", container(tmp_path, limit, 1, ""))
        assert abs(memory.free_memory() - psutil.virtual_memory().available) < 2**31
    monkeypatch.setattr(memory, "_GROUPS", ((str(tmp_path / "none"), str(tmp_path / "none"), ""),))
    assert memory.free_memory() > 0
