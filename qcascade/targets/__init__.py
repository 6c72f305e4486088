"""Targets: the devices a plan can be made for."""

from qcascade.targets.catalogue import IDEAL, TARGETS, get_target, targets
from qcascade.targets.planning import grid, line
from qcascade.targets.target import Gate, Price, QubitProperties, Target

__all__ = [
    "IDEAL",
    "TARGETS",
    "Gate",
    "Price",
    "QubitProperties",
    "Target",
    "get_target",
    "grid",
    "line",
    "targets",
]
