"""Noise-aware compilation of templates and circuits for targets."""

from qcascade.routing.compile import compile_template
from qcascade.routing.compiled import CompiledTemplate

__all__ = ["CompiledTemplate", "compile_template"]
