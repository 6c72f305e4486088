"""IBM devices: the calibration snapshots that come with qiskit-ibm-runtime, found in that package.

They are listed by their folders without importing Qiskit. A snapshot is converted once and kept as JSON in the user's
cache folder, one file for each state of the snapshot's files and of the code here.

Left out: devices of fewer than five qubits, those of 2020 whose basis is still u1, u2 and u3, and the few of `_LEFT_OUT`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qcascade.cache import read_cached, write_cached
from qcascade.errors import TargetError
from qcascade.targets.target import Price, Target

LEAST_QUBITS = 5
_LEFT_OUT = {
    "fractional": "made up for tests of fractional gates",
    "kyoto": "its snapshot reports error 1 for every two-qubit gate",
}
_PACKAGE = "qiskit_ibm_runtime"
_PRICE = Price(
    "USD",
    per_second=1.60,
    source="pay-as-you-go, seconds that the processor is taken; https://cloud.ibm.com/docs/quantum-computing "
    "of 2024-02-29",
)
_JOB_SECONDS = 2.0  # of "2 + 0.00035 * <num executions>" of IBM's guide "Estimate job run time", 2025


def names() -> tuple[str, ...]:
    """Names of the devices: ibm_ and the name of the snapshot."""
    return tuple(f"ibm_{folder}" for folder in _folders())


def load(name: str) -> Target | None:
    """The device of a name, None where it is not of these.

    Raises:
        TargetError: The snapshot is unusable or left out.

    Example:
        >>> load("ibm_torino").two_qubit_gates
        ('cz',)
    """
    folder = _folders().get(name.removeprefix("ibm_")) if name.startswith("ibm_") else None
    if folder is None:
        if reason := _LEFT_OUT.get(name.removeprefix("ibm_")):
            raise TargetError(f"target {name!r} is left out: {reason}. Choose another of `qcascade targets`.")
        return None
    kept = f"targets/{name}-{_state(folder)}"
    with suppress(TargetError):  # what is kept may be of another form
        if (stored := read_cached(kept)) is not None:
            return Target.from_json(json.dumps(stored))
    target = _convert(name, folder)
    write_cached(kept, json.loads(target.to_json()))
    return target


@cache
def _folders() -> dict[str, Path]:
    """Folders of usable snapshots by name."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return {}
    place = Path(spec.submodule_search_locations[0]) / "fake_provider" / "backends"
    found = {}
    for file in sorted(place.glob("*/conf_*.json")):
        described = json.loads(file.read_text(encoding="utf-8"))
        usable = described["n_qubits"] >= LEAST_QUBITS and "rz" in described["basis_gates"]
        if usable and file.parent.name not in _LEFT_OUT:
            found[file.parent.name] = file.parent
    return found


def _state(folder: Path) -> str:
    """Changes with the snapshot's files (they can be refreshed), the package and the code that converts."""
    code = Path(__file__).parent
    parts = [version(_PACKAGE), *(code.joinpath(name).read_text() for name in ("ibm.py", "qiskit.py", "target.py"))]
    parts += [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in sorted(folder.glob("*.json"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _convert(name: str, folder: Path) -> Target:
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        backend = _backend(folder)
        described: Any = backend.target
    untypical = any("not intended to represent typical" in str(note.message) for note in notes)
    gates = [op for op in described.operation_names if any(len(place or ()) == 2 for place in described[op] or ())]
    description = f"IBM {folder.name.capitalize()}: {described.num_qubits} qubits, {' and '.join(gates)}"
    if untypical:
        description += "; its errors are not typical of the device, says Qiskit"
    made = Target.from_qiskit(
        backend,
        name=name,
        description=description,
        job_overhead=_JOB_SECONDS,
        price=_PRICE,
        source=f"snapshot {type(backend).__name__} of {_PACKAGE} {version(_PACKAGE)}; {_JOB_SECONDS:g} s a job, IBM's guide "
        "'Estimate job run time'",
    )
    if made.shot_overhead is None:
        return made
    return replace(
        made, source=f"{made.source}; {made.shot_overhead:g} s between shots, the snapshot's default_rep_delay"
    )


def _backend(folder: Path) -> Any:
    provider = importlib.import_module(f"{_PACKAGE}.fake_provider.fake_backend")
    module = importlib.import_module(f"{_PACKAGE}.fake_provider.backends.{folder.name}")
    for found in vars(module).values():
        if inspect.isclass(found) and issubclass(found, provider.FakeBackendV2):
            return found()
    raise TargetError(f"{_PACKAGE} has no device in {folder.name}; another version of it may.")
