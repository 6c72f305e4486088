"""The catalogue of targets, made when they are asked for: `ideal`, IBM snapshots, ion traps, lines and grids.

A package adds a target under the entry point group ``qcascade.targets``.
"""

from __future__ import annotations

from pathlib import Path

from qcascade.errors import TargetError
from qcascade.registry import Registry
from qcascade.targets import ibm, ions, planning
from qcascade.targets.target import Target

TARGETS: Registry[Target] = Registry("target", "qcascade.targets", TargetError)
IDEAL = TARGETS.register("ideal")(Target("ideal", "no noise, every pair of qubits connected, gate times unknown"))
TARGETS.add_source(ibm.names, ibm.load)
TARGETS.add_source(ions.names, ions.load)
TARGETS.add_source(planning.names, planning.load)


def get_target(target: str | Path | Target) -> Target:
    """The target of a name, of a path that ends in .json, or the target itself.

    Raises:
        TargetError: The name is unknown (the message lists those that are known), the file is no valid target, or
            what a package registered is none.

    Example:
        >>> get_target("line-12").qubits
        12
        >>> get_target("H2-1").name
        'quantinuum_h2_1'
    """
    if isinstance(target, Target):
        return target
    if not isinstance(target, str | Path):
        raise TargetError(
            f"target is {type(target).__name__}; give a name, the path of a .json file, or a qcascade.Target."
        )
    if str(target).lower().endswith(".json"):
        return Target.from_json(Path(target))
    found = TARGETS.get(str(target))
    if not isinstance(found, Target):
        raise TargetError(f"what is registered as target {target!r} is {type(found).__name__}; a Target is needed.")
    return found


def targets() -> tuple[str, ...]:
    """Names of all targets; `line-N` and `grid-RxC` stand for any numbers.

    Example:
        >>> {"ideal", "ibm_torino", "quantinuum_h2_1", "line-N"} <= set(targets())
        True
    """
    return TARGETS.names()
