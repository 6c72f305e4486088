"""Find classification heads: the linear layer that an output comes straight out of, one row of logits an example."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from qcascade.capture.graph import CapturedModel
from qcascade.facts import HeadFacts
from qcascade.passes.base import Finder, Match, unique_name
from qcascade.passes.find_projections import owned, owner, references
from qcascade.passes.graph_walk import IDENTITY, as_linear, not_real, packet, sizes, tensor_paths


class FindHeads(Finder):
    """The last linear layers of classifiers."""

    def find(self, graph: fx.GraphModule, captured: CapturedModel, found: Sequence[Match]) -> tuple[Match, ...]:
        """A match for every head."""
        if not captured.final:
            return ()
        batch = next((sizes(n)[0] for n in graph.graph.nodes if n.op == "placeholder" and _has_batch(n)), None)
        matches: list[Match] = []
        taken, ends = {m.name for m in found}, set[fx.Node]()
        tensors = tensor_paths(captured.model)
        for node in graph.graph.output_node().all_input_nodes:
            while packet(node) in IDENTITY:
                node = node.args[0]  # type: ignore[assignment]
            linear = as_linear(node)
            if linear is None or len(sizes(node)) != 2 or sizes(node)[0] != batch or node in ends:
                continue
            if not owned(linear, tensors):
                continue
            width, classes = linear.features
            facts = HeadFacts(width, classes, sizes(node)[0], linear.bias is not None)
            stem, module = owner(linear, captured.model)
            name = unique_name(stem, taken)
            taken.add(name)
            ends.add(node)
            refusal = not_real(linear.weight)
            matches.append(Match(name, module, facts, (node,), (linear.x,), node, references(linear), refusal))
        return tuple(matches)


def _has_batch(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor) and node.meta["val"].dim() > 0
