"""The catalogue of targets: names to descriptions. Devices with topology and calibration register here too.

A package adds a target under the entry point group ``qcascade.targets``.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcascade.errors import TargetError
from qcascade.registry import Registry


@dataclass(frozen=True, slots=True)
class Target:
    """A device. What is not known is None."""

    name: str
    description: str
    qubits: int | None = None  # None: no limit


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
        >>> targets()
        ('ideal',)
    """
    return TARGETS.names()
