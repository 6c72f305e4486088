"""Capture: a module becomes two fx graphs, one for evaluation and one for training.

Over one private copy of its parameters.
"""

from qcascade.capture.ladder import capture

__all__ = ["capture"]
