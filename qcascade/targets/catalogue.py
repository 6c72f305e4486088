"""The catalogue of targets: names to descriptions. Devices with topology and calibration register here too.

A package adds a target under the entry point group ``qcascade.targets``.
"""

from __future__ import annotations

from qcascade.errors import TargetError
from qcascade.registry import Registry
from qcascade.targets.target import Target

TARGETS: Registry[Target] = Registry("target", "qcascade.targets", TargetError)
TARGETS.register("ideal")(Target("ideal", "no noise, every pair of qubits connected, gate times unknown"))


def get_target(name: str) -> Target:
    """The target called `name`.

    Raises:
        TargetError: It is unknown; the message lists those that are known.
    """
    return TARGETS.get(name)


def targets() -> tuple[str, ...]:
    """Names of all targets.

    Example:
        >>> "ideal" in targets()
        True
    """
    return TARGETS.names()
