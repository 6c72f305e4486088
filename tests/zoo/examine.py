"""Examine one entry: compile it, compare it with its original, train what was offloaded, and check its report."""

from __future__ import annotations

import copy
import inspect
import time
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qcascade.capture import capture
from qcascade.compiler import compile_captured, make_request
from qcascade.errors import ExecutionError
from qcascade.hybrid import HybridModule

from .entries import Entry


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an entry."""

    name: str
    family: str
    rung: str
    attentions: int  # found as regions
    attentions_expected: int  # self and cross, by hand from the configuration
    embeddings: int  # token tables found as regions
    embeddings_expected: int  # tables that the model was seen to look its inputs up in
    offloaded: int
    output_error: float  # greatest difference over greatest value
    gradient_error: float  # of any parameter or input, likewise
    moved: bool  # whether every kernel's parameters moved in a training step
    seconds: float  # of the compilation
    one_length: bool  # the graph runs at the example's length only, and refuses others
    notes: tuple[str, ...]
    reasons: tuple[str, ...]  # of attention and token embeddings that were kept

    @property
    def failures(self) -> list[str]:
        """What does not hold."""
        found = []
        if self.attentions != self.attentions_expected:
            found.append(f"{self.attentions} attentions found, {self.attentions_expected} expected")
        if self.embeddings != self.embeddings_expected:
            found.append(f"{self.embeddings} token embeddings found, {self.embeddings_expected} expected")
        if self.output_error > 1e-5 or self.gradient_error > 1e-5:
            found.append(f"differs by {self.output_error:.1e} in outputs, {self.gradient_error:.1e} in gradients")
        if not self.moved:
            found.append("kernels did not move, or what was trained is not finite")
        if any(not reason for reason in self.reasons):
            found.append("a region has no reason")
        return found


def examine(entry: Entry) -> Result:
    """Compile, compare, train and count one entry.

    The model is captured once for two hybrids; where nothing is offloaded by default, one serves both ends.
    """
    torch.manual_seed(0)
    model = entry.build()
    example = entry.inputs(entry.batches[0], entry.lengths[0])
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captured = capture(model, example)
        hybrid = compile_captured(copy.deepcopy(captured), make_request())
        seconds = time.perf_counter() - start
        moved = not hybrid.kernels or train_one_step(
            hybrid,
            entry.inputs(entry.batches[1], entry.lengths[0]),  # registers are as wide as the example is long
        )
        plain = hybrid
        if hybrid.kernels:
            plain = compile_captured(captured, make_request(kernels=[]))
        outputs, gradients = compare(entry, model, plain)
        follows_to_another_device(entry, model, plain)
        if entry.unrolled:
            refuses_lengths(entry, plain)
    regions = hybrid.plan.regions
    tables = tokens_looked_up(model, example)
    found = [r for r in regions if r.pattern == "embedding" and r.module in tables]
    attention = [r for r in regions if r.pattern == "attention"]
    return Result(
        entry.name,
        entry.family,
        hybrid.plan.capture.method,
        len(attention),
        entry.attentions + entry.crossed,
        len({tables[r.module] for r in found}),
        len(set(tables.values())),
        hybrid.plan.summary.offloaded,
        outputs,
        gradients,
        moved,
        seconds,
        entry.unrolled,
        hybrid.plan.capture.notes,
        tuple(r.reason for r in (*attention, *found)),
    )


def _other(entry: Entry) -> tuple[int, int]:
    return entry.batches[1], entry.lengths[1]


def compare(entry: Entry, model: nn.Module, hybrid: HybridModule) -> tuple[float, float]:
    """Greatest relative differences of outputs and of gradients: both modes, the example's size and another one."""
    assert list(hybrid.state_dict()) == list(model.state_dict()), "state_dict keys differ"
    outputs = gradients = 0.0
    constants = _constants(model)
    for training in (False, True):
        for sizes in ((entry.batches[0], entry.lengths[0]), _other(entry)):
            inputs = entry.inputs(*sizes)
            leaves = entry.input_gradients
            wanted, wanted_gradients = run(copy.deepcopy(model), inputs, training, constants, leaves)
            got, got_gradients = run(copy.deepcopy(hybrid), inputs, training, constants, leaves)
            assert len(wanted) == len(got), "results are nested otherwise"
            outputs = max([outputs, *(difference(a, b) for a, b in zip(got, wanted, strict=True))])
            assert got_gradients.keys() == wanted_gradients.keys(), "other parameters take gradients"
            scale = max((float(g.abs().max()) for g in wanted_gradients.values() if g.numel()), default=0.0)
            for name, gradient in wanted_gradients.items():
                gradients = max(gradients, difference(got_gradients[name], gradient, 1e-3 * scale))
    return outputs, gradients


def follows_to_another_device(entry: Entry, model: nn.Module, hybrid: HybridModule) -> None:
    """Moved, the hybrid runs wherever the original does; torch's meta device stands for one that is not the example's."""
    inputs = {name: value.to("meta") for name, value in entry.inputs(entry.batches[0], entry.lengths[0]).items()}
    try:
        wanted = pytree.tree_leaves(copy.deepcopy(model).eval().to("meta")(**inputs, **_constants(model)))
    except (RuntimeError, NotImplementedError):  # code that reads values, or operators without a meta function
        return
    got = pytree.tree_leaves(copy.deepcopy(hybrid).eval().to("meta")(**inputs, **_constants(model)))
    assert _shapes(got) == _shapes(wanted), "moved to another device, it gives other results"


def _constants(model: nn.Module) -> dict[str, bool]:
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def _shapes(results: list[Any]) -> list[tuple[torch.Size, str]]:
    return [(t.shape, t.device.type) for t in results if isinstance(t, Tensor)]


def refuses_lengths(entry: Entry, hybrid: HybridModule) -> None:
    """A graph of one length says so in a note, and refuses another length with a clear error."""
    assert any("is fixed at" in note for note in hybrid.plan.capture.notes), "no note says that the length is fixed"
    with pytest.raises(ExecutionError, match="fixed by the captured model"):
        hybrid(**entry.inputs(entry.batches[0], entry.lengths[0] + 3))


def run(
    model: nn.Module, inputs: dict[str, Tensor], training: bool, constants: dict[str, bool], leaves: bool
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Tensors of the results, and gradients of a loss on all of them by parameters and, where asked, inputs."""
    model.train(training)
    given = {k: v.clone().requires_grad_(leaves and v.is_floating_point()) for k, v in inputs.items()}
    torch.manual_seed(7)
    results = [t for t in pytree.tree_leaves(model(**given, **constants)) if isinstance(t, Tensor)]
    weights = torch.Generator().manual_seed(3)
    terms = [(t * torch.randn(t.shape, generator=weights)).sum() for t in results if t.requires_grad]
    if terms:
        torch.stack(terms).sum().backward()
    named = {**dict(model.named_parameters()), **{f"input {k}": v for k, v in given.items()}}
    return [t.detach() for t in results], {k: v.grad for k, v in named.items() if v.grad is not None}


def difference(got: Tensor, wanted: Tensor, least: float = 1e-12) -> float:
    """Greatest difference over the greatest value, infinities and NaNs (of masks) alike counting as none."""
    if got.shape != wanted.shape:
        return float("inf")
    if not got.numel():
        return 0.0
    a, b = got.double(), wanted.double()
    same = (a == b) | (a.isnan() & b.isnan())
    scale = max(least, float(b[b.isfinite()].abs().max()) if bool(b.isfinite().any()) else 0.0)
    return float(torch.where(same, 0.0, (a - b).abs() / scale).nan_to_num(float("inf")).max())


def train_one_step(hybrid: HybridModule, inputs: dict[str, Tensor]) -> bool:
    """A step of Adam on a loss of all results: whether every kernel moved and everything is finite."""
    hybrid.train()
    before = {n: p.detach().clone() for n, p in hybrid.named_parameters()}
    results = [t for t in pytree.tree_leaves(hybrid(**inputs)) if isinstance(t, Tensor) and t.requires_grad]
    optimizer = torch.optim.Adam(hybrid.parameters(), lr=1e-2)
    torch.stack([t.square().mean() for t in results]).sum().backward()
    optimizer.step()
    after = dict(hybrid.named_parameters())
    finite = all(bool(p.isfinite().all()) for p in after.values())
    paths = [n for n, m in hybrid.named_modules() if any(m is k for k in hybrid.kernels.values())]
    moved = all(
        any(n.startswith(f"{path}.") and not torch.equal(p, before[n]) for n, p in after.items()) for path in paths
    )
    return finite and moved and len(paths) == len(hybrid.kernels)


class _Lookups(TorchFunctionMode):
    """Tables in which integers that were given are looked up, by identity."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.contents = [t.flatten().sort().values for t in given]
        self.tables: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding:
            ids, table = [*args, kwargs.get("weight")][:2]
            if any(torch.equal(ids.flatten().sort().values, c) for c in self.contents):
                self.tables.add(id(table))
        return func(*args, **kwargs)


def tokens_looked_up(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, int]:
    """Modules that own a table in which the model looks up what it was given, seen in a run; shared tables have one number."""
    lookups = _Lookups([t for t in inputs.values() if not t.is_floating_point() and t.dim() == 2])
    with torch.no_grad(), lookups:
        model.eval()(**inputs)
    found = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in lookups.tables:
            found[path.rpartition(".")[0]] = id(parameter)
    return found


class _Softmaxes(TorchFunctionMode):
    """Counts attention: fused calls, and softmaxes over scores of at least three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = self.written = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.fused += func in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
        self.written += getattr(func, "__name__", "") == "softmax" and args[0].dim() >= 3
        return func(*args, **(kwargs or {}))


def attentions_run(model: nn.Module, inputs: dict[str, Tensor]) -> int:
    """Softmax attentions in a run of the original, counted at torch's own functions."""
    counter = _Softmaxes()
    with torch.enable_grad(), counter:  # without gradients torch.nn's encoder layer is one fused operator
        model.eval()(**inputs)
    return counter.fused + counter.written
