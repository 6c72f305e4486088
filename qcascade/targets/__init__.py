"""Targets: the devices a plan can be made for."""

from qcascade.targets.catalogue import TARGETS, Target, get_target, targets

__all__ = ["TARGETS", "Target", "get_target", "targets"]
