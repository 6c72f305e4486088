"""Routing: circuits compiled for a target, and what they will come to there."""

from qcascade.routing.compile import compile_template
from qcascade.routing.compiled import CompiledTemplate
from qcascade.routing.portfolio import Attempt
from qcascade.routing.route import RoutedCircuit, route

__all__ = ["Attempt", "CompiledTemplate", "RoutedCircuit", "compile_template", "route"]
