"""The hybrid of a model that was captured module by module: the model's own forward runs on, its regions are kernels.

What comes in: the private model, and the rewritten graphs of those of its modules in which something was offloaded. What
goes out: a `HybridModule` whose tree is the model's own, with a `Part` in place of each such module. A part is called as
the module was, and what the graph cannot follow is one `ExecutionError`; everything else is the original's code.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from qcascade.capture.graph import CapturedModel, CapturedModules, Unseen
from qcascade.capture.probe import fresh, set_mode, shadow
from qcascade.capture.runnable import Runnable
from qcascade.containers import Items
from qcascade.errors import first_line
from qcascade.hybrid import HybridModule, _Root
from qcascade.interface import Interface
from qcascade.passes.base import find_regions
from qcascade.passes.pipeline import FIND
from qcascade.passes.qualify_names import qualified
from qcascade.passes.rewrite_regions import Rewritten, rewrite_graphs
from qcascade.plan import PartitionPlan
from qcascade.targets import Target

_OWN = frozenset(nn.Module().__dict__)


@dataclass
class _PartState:
    """What a part holds beside its module tree."""

    root: _Root
    evaluation: Runnable
    training: Runnable | None
    interface: Interface


class Part(nn.Module):
    """A module run by its graph; the plain attributes of the original can still be read."""

    def __init__(self, original: nn.Module, made: Rewritten) -> None:
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = getattr(made.tree, table)
        for name, value in original.__dict__.items():
            if name not in _OWN and not callable(value):
                self.__dict__[name] = value
        assert made.training is not None  # a part is captured in both modes
        self.__dict__["_part"] = _PartState(
            _Root.of(self, made.constants), made.evaluation, made.training, made.interface
        )
        self.training = original.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The original's forward, its regions run by kernels.

        Raises:
            ExecutionError: The call differs from what was captured.
        """
        state: _PartState = self.__dict__["_part"]
        runnable = state.training if self.training else state.evaluation
        assert runnable is not None
        leaves = state.interface.leaves(args, kwargs)
        device = next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), torch.device("cpu"))
        return runnable(state.root, leaves, device)

    def _replicate_for_data_parallel(self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._rebind()
        return replica

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._rebind()

    def _rebind(self) -> None:
        """Let the graphs see this part's tables; the state may be another part's still."""
        state: _PartState = self.__dict__["_part"]
        self.__dict__["_part"] = replace(state, root=state.root.bound(self))


class IndexedPart(Items, Part):
    """Of an `nn.Sequential`."""


def _part(original: nn.Module, made: Rewritten) -> Part:
    return (IndexedPart if isinstance(original, nn.Sequential) else Part)(original, made)


class ModuleHybrid(HybridModule):
    """A hybrid that runs the original's own forward on a tree in which modules were replaced."""

    def __init__(
        self,
        model: nn.Module,
        parts: Mapping[str, Rewritten],
        plan: PartitionPlan,
        *,
        target: Target,
        example: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        swap_modules(model, {path: _part(model.get_submodule(path), made) for path, made in parts.items()})
        super().__init__(
            model,
            None,
            None,
            Interface(inspect.signature(model.forward), (), example),
            {name: f"{path}.{place}" for path, made in parts.items() for name, place in made.kernels.items()},
            plan,
            constants={},
            replaced={name: region for made in parts.values() for name, region in made.replaced.items()},
            target=target,
            config=getattr(model, "config", None),
        )
        self.__dict__["_model"] = model  # shares the tables of parameters, buffers and modules

    @property
    def code(self) -> str:
        """The rewritten graphs in evaluation mode, as Python, one a part."""
        found = {path: module for path, module in self.named_modules() if isinstance(module, Part)}
        return "\n".join(f"# {path}\n{part.__dict__['_part'].evaluation.source}" for path, part in found.items())

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, as the model does whose forward runs: it may leave some modules as they are."""
        super().train(mode)
        model: nn.Module | None = self.__dict__.get("_model")
        if model is not None and not set_mode(model, mode):
            model.training = mode
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The original's own forward, on the tree with kernels in it."""
        self._begin(stacklevel=3)
        model = self.__dict__["_model"]
        model.__dict__.update(self.__dict__.get("_former_parameters", {}))  # of a replica, which has them as attributes
        return model(*args, **kwargs)

    def _replicate_for_data_parallel(self) -> Self:
        replica = super()._replicate_for_data_parallel()
        model = replica.__dict__["_model"] = self.__dict__["_model"]._replicate_for_data_parallel()
        for table in ("_parameters", "_buffers", "_modules"):
            model.__dict__[table] = replica.__dict__[table]
        return replica

    def _called(self) -> list[tuple[Runnable, _Root]]:
        states: list[_PartState] = [part.__dict__["_part"] for part in self._graphs()]
        return [(state.evaluation, state.root) for state in states]

    def _graphs(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, Part)]


def swap_modules(model: nn.Module, instead: Mapping[str, nn.Module]) -> None:
    """Put modules in the place of others, wherever those are in the tree."""
    places = {id(model.get_submodule(path)): made for path, made in instead.items()}
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and id(child) in places:
                module._modules[name] = places[id(child)]


def usable_parts(captured: CapturedModules) -> CapturedModules:
    """The model without those parts that its own code would not run with; a note says why.

    Each part is put in by itself, without kernels, and the model is run on its example.
    """
    model, example = captured.model, (captured.example_args, captured.example_kwargs)
    parts, notes = list[CapturedModel](), list[str]()
    unseen = list(captured.unseen)
    wanted = _results(shadow(model, captured.written), example)
    for part in captured.parts:
        if reason := _misfit(part, shadow(model, captured.written), example, wanted):
            notes.append(f"{part.path} ({type(part.model).__name__}) stays as it is: {reason}")
            found = qualified(find_regions(FIND, part.eval_graph, part), part)
            unseen += [Unseen(m.name, m.pattern, reason) for m in found if m.pattern in ("attention", "embedding")]
        else:
            parts.append(part)
    record = replace(captured.record, notes=(*captured.record.notes, *notes))
    return replace(captured, parts=tuple(parts), unseen=tuple(unseen), record=record)


def _misfit(part: CapturedModel, model: nn.Module, example: Any, wanted: list[Any]) -> str | None:
    """Why a part cannot stand in for its module in the model's own code."""
    kept = dict(model.get_submodule(part.path).named_parameters())  # a copy of what code writes to
    shared = {id(p): kept.get(name, p) for name, p in part.model.named_parameters()}
    made = rewrite_graphs(copy.deepcopy(part, shared), (), (), {})
    swap_modules(model, {part.path: _part(part.model, made)})
    try:
        got = _results(model, example)
    except Exception as error:  # the model's own code may do anything with what is no longer there
        return f"code outside it reads more of it than its result ({first_line(error, named=True)})"
    if len(got) != len(wanted):
        return f"with its graph the model gives {len(got)} results instead of {len(wanted)}"
    for a, b in zip(wanted, got, strict=True):
        if isinstance(a, Tensor) and not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
            return "its graph gives other results than its code"
    return None


@torch.no_grad()
def _results(model: nn.Module, example: Any) -> list[Any]:
    """The model's results for its example, flat; the random state is left as it was."""
    args, kwargs = fresh(example)
    for training in (True, False):  # its own train() may look into what is no longer there
        set_mode(model, training)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.utils._pytree.tree_leaves(model(*args, **kwargs))
