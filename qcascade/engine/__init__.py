"""Differentiable statevector simulation of circuit templates: `lower` once, `evolve` batches, then read out."""

from qcascade.engine.program import Program, lower
from qcascade.engine.statevector import evolve, expectations, probabilities, unitary_columns

__all__ = ["Program", "evolve", "expectations", "lower", "probabilities", "unitary_columns"]
