"""Find embeddings: tables of vectors looked up by integer ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from qcascade.capture.graph import CapturedModel
from qcascade.facts import EmbeddingFacts
from qcascade.passes.base import Finder, Match, WeightRef, unique_name
from qcascade.passes.graph_walk import IDENTITY, LAYOUT, module_path, not_real, packet, readers, sizes, tensor_paths

_aten = torch.ops.aten


class FindEmbeddings(Finder):
    """Token, type and position embeddings; those that are not indexed by an input as it is are refused."""

    def find(self, graph: fx.GraphModule, captured: CapturedModel, found: Sequence[Match]) -> tuple[Match, ...]:
        """A match for every lookup in a parameter."""
        tensors = tensor_paths(captured.model)
        matches: list[Match] = []
        taken, reading = {m.name for m in found}, readers(graph.graph, tensors)
        for node in graph.graph.nodes:
            if packet(node) is not _aten.embedding:
                continue
            table, ids = node.args[0], node.args[1]
            if not isinstance(table, fx.Node) or table.op != "get_attr" or str(table.target) not in tensors:
                continue
            assert isinstance(ids, fx.Node)
            shape = sizes(ids)
            padding: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("padding_idx", -1)
            rows, features = sizes(table)
            facts = EmbeddingFacts(
                vocabulary=rows,
                features=features,
                batch=shape[0] if len(shape) > 1 else 1,
                sequence_length=int(torch.tensor(shape[1:]).prod()) if len(shape) > 1 else shape[0],
                padding_index=int(padding) if int(padding) >= 0 else None,
                tied_to=_tied_to(node, reading[id(tensors[str(table.target)])]),
            )
            path = str(table.target)
            module = module_path(node) if f"{module_path(node)}.weight" in tensors else path.rpartition(".")[0]
            name = unique_name(module or path, taken)
            taken.add(name)
            refusal = None if is_input(ids) else "its ids are computed (positions or types), not tokens that are put in"
            refusal = refusal or not_real(table)
            matches.append(Match(name, module, facts, (node,), (ids,), node, {"weight": WeightRef(path)}, refusal))
        return tuple(matches)


def is_input(node: Any) -> bool:
    """Whether ids are an input of the model, at most rearranged."""
    while packet(node) in LAYOUT | IDENTITY:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.op == "placeholder"


def _tied_to(lookup: fx.Node, reading: Sequence[fx.Node]) -> str | None:
    """Where else the table is used."""
    for node in reading:
        for user in node.users:
            if user is not lookup:
                return module_path(user) or str(node.target)
    return None
