"""Capture: a module becomes two fx graphs, one for evaluation and one for training, over one private copy of its parameters."""

from qcascade.capture.ladder import capture

__all__ = ["capture"]
