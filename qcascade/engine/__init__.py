"""Differentiable simulation of circuit templates: `lower` once, then `simulate` batches.

Program → schedule → compiled circuits (CPU) or the torch reference (any device), behind torch operators.
"""

from qcascade.engine.operators import (
    arranged,
    evolve,
    expectations,
    flops,
    probabilities,
    simulate,
    unitary_columns,
    watched,
)
from qcascade.engine.program import Program, lower

__all__ = [
    "Program",
    "arranged",
    "evolve",
    "expectations",
    "flops",
    "lower",
    "probabilities",
    "simulate",
    "unitary_columns",
    "watched",
]
