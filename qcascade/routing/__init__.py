"""Routing: circuits compiled for a target, and what they will come to there."""

from qcascade.routing.compile import compile_template
from qcascade.routing.compiled import CompiledTemplate

__all__ = ["CompiledTemplate", "compile_template"]
