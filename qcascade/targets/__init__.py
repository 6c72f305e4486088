"""Targets: the devices a plan can be made for."""

from qcascade.targets.catalogue import TARGETS, get_target, targets
from qcascade.targets.target import Gate, Price, QubitProperties, Target

__all__ = ["TARGETS", "Gate", "Price", "QubitProperties", "Target", "get_target", "targets"]
