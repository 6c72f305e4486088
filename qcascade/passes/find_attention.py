"""Find self-attention: softmax(QKᵀ)V, fused (sdpa) or written out, with its projections around it.

What comes in: a graph. What goes out: a match for every attention core. From the core the way leads back to the
projections of queries, keys and values and forward to the output projection; which rows of a packed projection hold
values is read off by sending element numbers through the views between (`graph_walk.rearranged`). Masks are judged by
their value for the example. An attention that pooling over keys cannot stand in for is matched all the same, with the
reason as its refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from qcascade.capture.graph import CapturedModel
from qcascade.capture.inputs import upper_bound
from qcascade.facts import AttentionFacts
from qcascade.kernels.attention import counted
from qcascade.passes.base import Finder, Match, WeightRef, unique_name
from qcascade.passes.find_embeddings import is_input
from qcascade.passes.graph_walk import (
    IDENTITY,
    LAYOUT,
    Evaluator,
    Linear,
    UnknownLayoutError,
    as_linear,
    back_to_rank,
    between,
    common_module,
    is_size,
    live_nodes,
    module_path,
    nearest_linears,
    packet,
    rearranged,
    sizes,
    tensor_paths,
)

_aten = torch.ops.aten
_PRODUCTS = (_aten.matmul, _aten.bmm)
_SCALES = (_aten.mul, _aten.div, _aten.mul_, _aten.div_)
_SUMS = (_aten.add, _aten.add_)
_FILLS = (_aten.masked_fill, _aten.masked_fill_)
_LIKE = {_aten.expand_as, _aten.view_as, _aten.reshape_as}
_BLANK = (  # takes only sizes and type from its input
    _aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.empty_like, _aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty,
)  # fmt: skip


@dataclass
class _Core:
    """softmax(QKᵀ + mask)V as nodes."""

    output: fx.Node
    query: fx.Node
    key: fx.Node
    value: fx.Node
    masks: list[fx.Node] = field(default_factory=list)
    mask_excludes: bool = False
    causal: bool = False
    dropout: float = 0.0
    odd: str | None = None  # what else happens to the scores


class _RefusedError(Exception):
    """Why an attention is matched but cannot be replaced."""


class FindAttention(Finder):
    """Self-attention with its projections."""

    def find(self, graph: fx.GraphModule, captured: CapturedModel, found: Sequence[Match]) -> tuple[Match, ...]:
        """A match for every attention core."""
        evaluator, live = Evaluator(graph, captured), live_nodes(graph.graph)
        tensors = tensor_paths(captured.model)
        matches: list[Match] = []
        taken = {m.name for m in found}
        for node in graph.graph.nodes:
            core = _fused_core(node) or _written_core(node)
            if core is not None and node in live:
                match = _match(core, evaluator, live, taken)
                if any(reference.path not in tensors for reference in match.weights.values()):
                    match = replace(
                        match, weights={}, refusal="its projections are constants of the code, no weights of the model"
                    )
                matches.append(match)
                taken.add(match.name)
        return tuple(matches)


def _fused_core(node: fx.Node) -> _Core | None:
    if packet(node) is not _aten.scaled_dot_product_attention:
        return None
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    mask: Any = given.get("attn_mask")
    return _Core(
        node,
        given["query"],  # type: ignore[arg-type]
        given["key"],  # type: ignore[arg-type]
        given["value"],  # type: ignore[arg-type]
        masks=[] if mask is None else [mask],
        causal=bool(given.get("is_causal", False)),
        dropout=float(given.get("dropout_p", 0.0)),  # type: ignore[arg-type]
    )


def _written_core(node: fx.Node) -> _Core | None:
    """matmul(softmax(matmul(Q, Kᵀ) [scaled, masked]) [dropped out], V)."""
    if (factors := _factors(node)) is None:
        return None
    dropout, value = 0.0, factors[1]
    current: Any = factors[0]
    while packet(current) in IDENTITY | LAYOUT:
        if packet(current) is _aten.dropout and current.args[2]:
            dropout = float(current.args[1])
        current = current.args[0]
    if packet(current) not in (_aten.softmax, _aten._softmax):
        return None
    assert isinstance(current, fx.Node)
    core = _Core(node, node, node, value, dropout=dropout)
    return core if _read_scores(current.args[0], core) else None


def _read_scores(node: Any, core: _Core) -> bool:
    """Fill a core's query, key and masks from the argument of its softmax; False where that is no attention."""
    while isinstance(node, fx.Node):
        kind, args = packet(node), cast(tuple[Any, ...], node.args)
        if (factors := _factors(node)) is not None:
            if kind is _aten.baddbmm:
                core.masks.append(args[0])
            core.query, core.key = factors
            return True
        if kind in IDENTITY | LAYOUT or kind is _aten.tanh or (kind in _SCALES and _is_number(args[1])):
            node = args[0]
        elif kind in _SUMS and _is_tensor(args[1]):
            first_is_scores = _leads_to_product(args[0])
            core.masks.append(args[1] if first_is_scores else args[0])
            node = args[0] if first_is_scores else args[1]
        elif kind in _FILLS:
            core.masks.append(args[1])
            core.mask_excludes = True
            node = args[0]
        elif kind is _aten.where:
            first_is_scores = _leads_to_product(args[1])
            core.masks.append(args[0])
            core.mask_excludes = not first_is_scores
            node = args[1] if first_is_scores else args[2]
        else:
            sources = [n for n in node.all_input_nodes if _is_tensor(n) and _leads_to_product(n)]
            if len(sources) != 1:
                return False
            core.odd = f"its scores also go through {node.name}, for which pooling has no place"
            node = sources[0]
    return False


def _factors(node: Any) -> tuple[fx.Node, fx.Node] | None:
    """The two tensors that a node multiplies as matrices, where it does."""
    if packet(node) in (*_PRODUCTS, _aten.baddbmm):
        first, second = node.args[-2:]
    elif packet(node) is _aten.einsum and len(node.args[1]) == 2:
        first, second = node.args[1]
    else:
        return None
    return (first, second) if isinstance(first, fx.Node) and isinstance(second, fx.Node) else None


def _is_number(argument: Any) -> bool:
    return not _is_tensor(argument) or len(argument.meta["val"].shape) == 0


def _is_tensor(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and isinstance(argument.meta.get("val"), Tensor)


def _leads_to_product(node: Any) -> bool:
    known = (*_SCALES, *_FILLS, *_SUMS, _aten.where, _aten.tanh)
    while isinstance(node, fx.Node) and _factors(node) is None:
        if packet(node) not in IDENTITY | LAYOUT and packet(node) not in known:
            return False
        node = node.args[1] if packet(node) is _aten.where else node.args[0]
    return isinstance(node, fx.Node)


def _match(core: _Core, evaluator: Evaluator, live: set[fx.Node], taken: set[str]) -> Match:
    values, queries = nearest_linears(core.value), nearest_linears(core.query)
    keys = nearest_linears(core.key)
    x = back_to_rank(values[0].x, 3) if len(values) == 1 and queries and keys else None
    if x is None or len(x.meta["val"].shape) != 3:
        return _bare(core, taken)
    value = values[0]
    output, after = _output_projection(core)
    end = output.node if output is not None else core.output
    module = common_module([value.node, queries[0].node, end])
    nodes = between(x, after)
    rotary = any(packet(n) is _aten.neg for n in nodes) and any(packet(n) is _aten.cat for n in nodes)
    foreign = _foreign(nodes, (x, *core.masks))
    rotary = rotary or any(packet(user) in _SCALES for user in foreign)
    heads, width = 1, sizes(core.value)[-1]
    if len(sizes(core.output)) == 4:
        heads = sizes(core.output)[1]
    first, second = sizes(x)[0], sizes(x)[1]
    weights: dict[str, WeightRef] = {}
    refusal, sequence_first, causal = None, False, core.causal
    try:
        if core.odd is not None:
            raise _RefusedError(core.odd)
        if any(back_to_rank(linear.x, 3) is not x for linear in (*queries, *keys)):
            raise _RefusedError(
                "cross-attention: queries and values come from different inputs, or from different positions of one"
            )
        if output is None:
            raise _RefusedError("its output does not go straight into an output projection")
        if sizes(after) != sizes(x):
            raise _RefusedError(f"its output has the shape {list(sizes(after))}, and its input {list(sizes(x))}")
        sequence_first, rows = _value_layout(core, value, x)
        heads, width = rows.shape
        _check_output_layout(core, output, heads)
        flat = tuple(rows.flatten().tolist())
        whole = flat == tuple(range(value.features[1]))
        weights.update(_references("value", value, None if whole else flat))
        weights.update(_references("output", output, None))
        if not causal:
            causal = _judge_masks(core, evaluator, heads, nodes, after)
        _check_outside_use(nodes, after, live)
        if not rotary and foreign:
            source = min(foreign.values(), key=lambda n: n.name)
            raise _RefusedError(f"it reads {source.name}, computed outside it, besides its input and its mask")
    except _RefusedError as error:
        refusal = str(error)
    length = second if not sequence_first else first
    size = x.meta["val"].shape[0 if sequence_first else 1]
    facts = AttentionFacts(
        features=sizes(x)[2],
        heads=heads,
        head_dim=width,
        batch=first if not sequence_first else second,
        sequence_length=length,
        max_length=(upper_bound(size) or _position_rows(after.graph, length))
        if isinstance(size, torch.SymInt)
        else int(size),
        causal=causal,
        masked=bool(core.masks),
        rotary=rotary,
        dropout=core.dropout,
    )
    ordered = tuple(sorted(nodes))
    mask = core.masks[0] if core.masks else None
    name = unique_name(module or "attention", taken)
    return Match(
        name, module, facts, ordered, (x, mask), after, weights, refusal,
        mask_excludes=core.mask_excludes, sequence_first=sequence_first,
    )  # fmt: skip


def _bare(core: _Core, taken: set[str]) -> Match:
    """An attention without linear projections of one input [B, n, d] around it."""
    shape = sizes(core.output)
    heads = shape[1] if len(shape) == 4 else 1
    facts = AttentionFacts(
        heads * shape[-1], heads, shape[-1], shape[0], shape[-2], None, core.causal, bool(core.masks)
    )
    module = module_path(core.output)
    refusal = (
        "its queries, keys and values do not come from one input by plain linear projections (cross-attention, say)"
    )
    return Match(
        unique_name(module or "attention", taken),
        module,
        facts,
        (core.output,),
        (core.value,),
        core.output,
        {},
        refusal,
    )


def _position_rows(graph: fx.Graph, length: int) -> int | None:
    """Positions that the model's position table has, where its ids are computed and no size is bounded by it."""
    rows = []
    for node in graph.find_nodes(op="call_function", target=_aten.embedding.default, sort=False):
        if isinstance(node.args[0], fx.Node) and not is_input(node.args[1]):
            padding = node.args[2] if len(node.args) > 2 else -1
            rows.append(sizes(node.args[0])[0] - 1 - int(padding))
    return min((r for r in rows if r >= length), default=None)


def _output_projection(core: _Core) -> tuple[Linear | None, fx.Node]:
    """The projection that the heads' outputs go into, and the node that holds its result with three dimensions."""
    node = core.output
    while True:
        users = [u for u in node.users if not is_size(u) and u.target is not _aten._assert_tensor_metadata.default]
        if len(users) != 1:
            return None, core.output
        node = users[0]
        if (linear := as_linear(node)) is not None:
            break
        if packet(node) not in LAYOUT | IDENTITY:
            return None, core.output
    while len(node.meta["val"].shape) != 3:
        users = [u for u in node.users if packet(u) in LAYOUT]
        if len(node.users) != 1 or not users:
            return None, core.output
        node = users[0]
    return linear, node


def _value_layout(core: _Core, value: Linear, x: fx.Node) -> tuple[bool, Tensor]:
    """Whether x is [n, B, d], and which output feature of the projection is element (head, e): rows [H, E]."""
    first, second, _ = sizes(x)
    features = value.features[1]
    numbers = torch.arange(first * second * features).reshape(sizes(value.node))
    try:
        seen = rearranged(value.node, core.value, numbers)
    except UnknownLayoutError as error:
        raise _RefusedError(f"its values are changed after their projection (by {error})") from error
    for sequence_first, (batch, length) in ((False, (first, second)), (True, (second, first))):
        if (
            seen.dim() not in (3, 4)
            or seen.shape[-2] != length
            or seen.numel() % (batch * length)
            or seen.shape[0] % batch
        ):
            continue
        four = seen.reshape(batch, -1, length, seen.shape[-1])
        feature, place = four % features, four // features
        b, i = (place % second, place // second) if sequence_first else (place // second, place % second)
        expected_b = torch.arange(batch)[:, None, None, None].expand_as(four)
        expected_i = torch.arange(length)[None, None, :, None].expand_as(four)
        if torch.equal(b, expected_b) and torch.equal(i, expected_i):
            rows = feature[0, :, 0]
            if torch.equal(feature, rows[None, :, None].expand_as(feature)):
                return sequence_first, rows
    raise _RefusedError("the layout of its values is not batch, head, position, feature")


def _check_output_layout(core: _Core, output: Linear, heads: int) -> None:
    """Heads must be concatenated in order before the output projection."""
    shape = sizes(core.output)
    length, width = shape[-2:]
    numbers = torch.arange(prod(shape)).reshape(shape)
    try:
        seen = rearranged(core.output, output.x, numbers)
    except UnknownLayoutError as error:
        raise _RefusedError(f"its output is changed before its projection (by {error})") from error
    element, head = seen % width, seen // (width * length) % heads
    wanted = torch.arange(heads * width)
    if seen.shape[-1] != heads * width or bool((head * width + element != wanted).any()):
        raise _RefusedError("its heads are not concatenated in order before the output projection")


def _references(name: str, linear: Linear, rows: tuple[int, ...] | None) -> dict[str, WeightRef]:
    references = {f"{name}.weight": WeightRef(str(linear.weight.target), rows, linear.transposed)}
    if linear.bias is not None:
        references[f"{name}.bias"] = WeightRef(str(linear.bias.target), rows)
    return references


def _judge_masks(core: _Core, evaluator: Evaluator, heads: int, nodes: set[fx.Node], after: fx.Node) -> bool:
    """Whether the mask is causal; refuses masks that are not a choice of keys alike for all queries and heads."""
    kept: list[Tensor] = []
    for node in core.masks:
        if node in nodes:
            raise _RefusedError("its mask or bias is computed from its own input")
        value: Tensor = evaluator(node, after)  # where the kernel will read it
        if value.is_floating_point():
            keep = counted(value)
            if bool((value[keep] != 0).any()):
                raise _RefusedError(
                    "an additive bias on its scores (relative positions, say; "
                    f"up to {float(value[keep].abs().max()):.2g} for the example) that pooling has no place for"
                )
            if (learned := _learned(node, evaluator)) is not None:
                raise _RefusedError(
                    f"an additive bias on its scores that is learned ({learned.target}; zero for the example) and that pooling has "
                    "no place for"
                )
        else:
            keep = value.logical_not() if core.mask_excludes else value != 0
        kept.append(keep)
    if len(kept) > 1:
        raise _RefusedError(f"its scores are masked {len(kept)} times; one mask of keys can be carried over")
    for keep in kept:
        if (
            keep.dim() == 3 and keep.shape[:1] == sizes(core.output)[:-2] and keep.shape[0] % heads == 0
        ):  # [B·H, 1|n, n]
            keep = keep.unflatten(0, (-1, heads))
        queries, keys = keep.shape[-2:] if keep.dim() > 1 else (1, keep.shape[-1])
        if queries == keys > 1 and not bool(keep.triu(1).any()) and bool(keep.any()):
            return True
        if queries > 1 and not bool((keep == keep[..., :1, :]).all()):
            raise _RefusedError("its mask differs from query to query")
        if keep.dim() < 3:
            raise _RefusedError("its mask has no batch dimension")
        if keep.dim() == 4 and not bool((keep == keep[:, :1]).all()):
            raise _RefusedError("its mask differs from head to head")
    return False


def _learned(mask: fx.Node, evaluator: Evaluator) -> fx.Node | None:
    """The parameter that a floating-point mask's values are computed from, if there is one."""
    seen, pending = {mask}, [mask]
    while pending:
        node = pending.pop()
        value = node.meta.get("val")
        if node.op == "get_attr" and isinstance(evaluator(node), nn.Parameter):
            return node
        if not isinstance(value, Tensor) or not value.is_floating_point() or packet(node) in _BLANK:
            continue
        sources = node.all_input_nodes[:1] if packet(node) in IDENTITY | _LIKE else node.all_input_nodes
        pending.extend(n for n in sources if n not in seen)
        seen.update(sources)
    return None


def _foreign(nodes: set[fx.Node], given: tuple[fx.Node, ...]) -> dict[fx.Node, fx.Node]:
    """Tensors computed outside that nodes read and that are not given to them, by the node that reads one."""
    return {
        node: source
        for node in nodes
        for source in node.all_input_nodes
        if source not in nodes and source not in given and source.op != "get_attr" and not is_size(source)
    }


def _check_outside_use(nodes: set[fx.Node], after: fx.Node, live: set[fx.Node]) -> None:
    for node in nodes - {after}:
        for user in node.users:
            if user in live and user not in nodes and not is_size(user):
                raise _RefusedError(f"something inside it ({node.name}) is also used outside, by {user.name}")
