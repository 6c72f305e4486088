"""Find linear projections: every linear layer that is no head.

Those inside attention included (adapters sit on them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from torch import Tensor, fx, nn

from qcascade.capture.graph import CapturedModel
from qcascade.facts import LinearFacts
from qcascade.passes.base import Finder, Match, WeightRef, unique_name
from qcascade.passes.graph_walk import Linear, as_linear, not_real, sizes, tensor_paths


class FindProjections(Finder):
    """Linear layers."""

    def find(self, graph: fx.GraphModule, captured: CapturedModel, found: Sequence[Match]) -> tuple[Match, ...]:
        """A match for every linear layer with weights of the model."""
        heads = {m.output for m in found if m.pattern == "head"}
        taken = {m.name for m in found}
        tensors = tensor_paths(captured.model)
        matches: list[Match] = []
        for node in graph.graph.nodes:
            linear = as_linear(node)
            if linear is None or node in heads or not owned(linear, tensors):
                continue
            width, features = linear.features
            facts = LinearFacts(width, features, prod(sizes(node)[:-1]), linear.bias is not None)
            stem, module = owner(linear, captured.model)
            name = unique_name(stem, taken)
            taken.add(name)
            refusal = not_real(linear.weight)
            matches.append(Match(name, module, facts, (node,), (linear.x,), node, references(linear), refusal))
        return tuple(matches)


def owned(linear: Linear, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer's weights are the model's, and no constants of its code."""
    return all(str(n.target) in tensors for n in (linear.weight, linear.bias) if n is not None)


def references(linear: Linear) -> dict[str, WeightRef]:
    """The canonical weights of a linear layer."""
    found = {"weight": WeightRef(str(linear.weight.target), None, linear.transposed)}
    if linear.bias is not None:
        found["bias"] = WeightRef(str(linear.bias.target))
    return found


def owner(linear: Linear, model: nn.Module) -> tuple[str, str]:
    """A name for the layer, and the path of the module that owns its weight."""
    path = str(linear.weight.target)
    module, _, leaf = path.rpartition(".")
    return (module if leaf == "weight" and module else path), module
