"""The hybrid: an ordinary module with the original's interface, parameter names and modes, some regions run by kernels.

What comes in: the rewritten module tree and graphs (`passes.rewrite_regions`). What goes out: an `nn.Module` for
ordinary loops. Calls are checked by its `Interface`; what cannot run is one `ExecutionError`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from qcascade.capture.packed import PackedModule, pack_module, unpack_module
from qcascade.capture.runnable import Runnable, written_dtypes
from qcascade.containers import Items
from qcascade.dispatch import DispatchedExecutor, Journal, Policy, Switch, take_turns
from qcascade.errors import ExecutionError
from qcascade.executors import Executor, Run, make_executor
from qcascade.interface import Interface, joined
from qcascade.kernels.base import QuantumKernel
from qcascade.offload import Dynamic, Offloading
from qcascade.plan import PartitionPlan
from qcascade.silent_hooks import HookWatch, silent_hooks
from qcascade.silent_modes import ModeWatch
from qcascade.silent_swaps import SwapWatch
from qcascade.targets import Target


class _Root(nn.Module):
    """What the graphs see as `self`: the hybrid's own tables, under no other attribute names, and the graphs' constants.

    What is in none of these is the hybrid's: a parametrized parameter, or one of a replica of `nn.DataParallel`.
    """

    __slots__ = ("_hybrid",)  # no attribute that a graph could mean

    @classmethod
    def of(cls, hybrid: nn.Module, constants: Mapping[str, Any]) -> _Root:
        """The root of a hybrid's graphs, or of a part's."""
        root = cls()
        root.__dict__.update(constants)
        root.bind(hybrid)
        return root

    def bind(self, hybrid: nn.Module) -> None:
        """Show this hybrid's tables. It is known weakly, so that it goes with its last user."""
        for table in ("_parameters", "_buffers", "_modules"):
            self.__dict__[table] = hybrid.__dict__[table]
        self._hybrid = weakref.ref(hybrid)

    def bound(self, hybrid: nn.Module) -> _Root:
        """This root for another hybrid with the same graphs."""
        return _Root.of(hybrid, self.__dict__)

    def inner_graphs(self) -> Iterator[fx.Graph]:
        """Of blocks of no_grad and autocast in evaluation mode, and of blocks in them."""
        for name, value in self.__dict__.items():
            if name.startswith("_eval") and isinstance(value, fx.GraphModule):
                yield from (block.graph for block in value.modules() if isinstance(block, fx.GraphModule))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or name == "_hybrid":  # how to copy it, say; and before it is bound
                raise
            return getattr(self._hybrid(), name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: pack_module(v) if isinstance(v, fx.GraphModule) else v for name, v in self.__dict__.items()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update({n: unpack_module(v) if isinstance(v, PackedModule) else v for n, v in state.items()})


class HybridModule(nn.Module):
    """A model with some regions run as quantum kernels; made by `qcascade.compile`.

    It is called, trained, saved, moved and copied like the original. `state_dict` has the original's keys for
    everything that stays classical; a kernel's are under the path of the module it replaced, in `quantum`.

    Attributes:
        config: The original's `config`, where it has one (Hugging Face's Trainer reads it).
    """

    accepts_loss_kwargs = False  # Trainer then passes no num_items_in_batch: a captured loss is its batch's own mean

    def __init__(
        self,
        tree: nn.Module,
        evaluation: Runnable | None,
        training: Runnable | None,
        interface: Interface,
        kernels: Mapping[str, str],
        plan: PartitionPlan,
        *,
        constants: Mapping[str, Any],
        replaced: Mapping[str, fx.GraphModule],
        target: Target,
        config: Any = None,
    ) -> None:
        super().__init__()
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = getattr(tree, table)
        self.__dict__["_qcascade"] = _State(
            _Root.of(self, constants), evaluation, training, interface, dict(kernels), plan, dict(replaced), target,
            HookWatch(set(silent_hooks(self._graphs()))), SwapWatch(self._graphs(), kernels.values()), _precision(self),
            isinstance(tree, nn.Sequential),
        )  # fmt: skip
        if config is not None:
            self.__dict__["config"] = config
        self.__class__ = _called_like(type(self), interface.signature, indexed=isinstance(tree, nn.Sequential))
        self.training = tree.training  # and every module in the mode that it was given in

    @property
    def plan(self) -> PartitionPlan:
        """What was found, what it costs and what was decided."""
        return self._state.plan

    @property
    def kernels(self) -> dict[str, QuantumKernel]:
        """The kernels by region name."""
        found = {}
        for name, path in self._state.kernels.items():
            kernel = self._state.root.get_submodule(path)
            assert isinstance(kernel, QuantumKernel)
            found[name] = kernel
        return found

    @property
    def code(self) -> str:
        """The rewritten graph in evaluation mode, as Python."""
        assert self._state.evaluation is not None
        return self._state.evaluation.source

    def use(
        self,
        executor: str | Executor | Dynamic = "statevector",
        *,
        microbatches: int | None = None,
        journal: str | Path | Journal | bool | None = None,
        policy: Policy | None = None,
        **options: Any,
    ) -> Self:
        """Choose how circuits run; it can be changed at any time, and copies of the hybrid share what is chosen.

        Args:
            executor: "statevector" simulates exactly; "shots" samples the exact state; "noisy" samples the circuits as
                compiled for the target, under its calibrated noise; any `Executor`; or `Dynamic`, which chooses among
                several for every kernel as it runs.
            microbatches: Parts that a batch is run in; while one waits for the device the next computes. Any of this and
                the two below puts a dispatcher before the executor (`dispatch.DispatchedExecutor`), which runs each
                circuit once; "statevector", distributed or not, has no use for one, and ignores them.
            journal: Where to remember what was submitted and what came back: a path, or True for the user's own journal.
            policy: Deadline, retries, fall-back, budgets.
            options: Of a named executor, such as `shots`, `seed`, `gradients` ("shift" or "spsa"); for "noisy" also
                `target` (the plan's by default) and `mitigation`.

        Returns:
            The hybrid itself.

        Raises:
            ExecutionError: The executor is unknown, takes no such option or value, or the model cannot be run in
                micro-batches.
        """
        state = self._state
        if state.evaluation is None and microbatches not in (None, 1):
            raise ExecutionError(
                f"microbatches={microbatches}: this model was captured module by module and its own code runs the whole batch; "
                "use microbatches=1."
            )

        def make(given: str | Executor, **options: Any) -> Executor | None:
            if given == "noisy":
                options.setdefault("target", state.target)
            made = make_executor(given, **options)
            if made is None or made.adjoint or (microbatches is None and journal is None and policy is None):
                return made
            if isinstance(executor, Dynamic) and isinstance(made, DispatchedExecutor):
                return made  # with a journal and a policy of its own
            return DispatchedExecutor(
                made, journal=journal, policy=policy, microbatches=1 if microbatches is None else microbatches
            )

        if isinstance(executor, Dynamic):
            if options:
                raise ExecutionError(f"{', '.join(options)}: Dynamic takes no options; make its executors with them.")
            places = {name: make(place) for name, place in executor.places.items()}
            chosen = Offloading(executor, places, list(self.kernels), self.plan, microbatches or 1)
            for name, kernel in self.kernels.items():
                kernel.executor = chosen.executor(name)
            state.executor, state.first_run = chosen, 0
            return self
        made = make(executor, **options)
        for kernel in self.kernels.values():
            kernel.executor = made
        state.executor, state.first_run = made, 0 if made is None else made.runs
        return self

    @property
    def last_run(self) -> tuple[Run, ...]:
        """What ran for the last call and its backward pass, in order; nothing where circuits are simulated exactly."""
        executor, first = self._state.executor, self._state.first_run
        if executor is None or executor.runs <= first:
            return ()
        # circuits of an earlier call's gradients that no backward pass asked for may have ended since
        return tuple(
            run for run in tuple(executor.history)[first - executor.runs :] if run.started >= self._state.began
        )

    @property
    def switches(self) -> tuple[Switch, ...]:
        """Every change of place since `use(Dynamic(…))`, with its reason, oldest first; none without it."""
        executor = self._state.executor
        return tuple(executor.switches) if isinstance(executor, Offloading) else ()

    @property
    def places(self) -> dict[str, str | None]:
        """Where each kernel ran last under `use(Dynamic(…))`, by name; None before its first step, and empty without it."""
        executor = self._state.executor
        return executor.places if isinstance(executor, Offloading) else {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The original's forward, its regions run by the kernels.

        Raises:
            ExecutionError: The call differs from what was captured, or training mode could not be captured.
        """
        state = self._state
        self._begin(stacklevel=3)
        runnable = state.training if self.training else state.evaluation
        if runnable is None:
            notes = "; ".join(n for n in self.plan.capture.notes if n.startswith("training mode"))
            raise ExecutionError(f"this hybrid only evaluates: {notes}. Call .eval() first.")
        leaves = state.interface.leaves(args, kwargs)
        device = next((leaf.device for leaf in leaves if isinstance(leaf, Tensor)), torch.device("cpu"))
        if isinstance(state.executor, DispatchedExecutor | Offloading):
            return self._in_parts(state.executor.microbatches, runnable, leaves, device)
        return runnable(state.root, leaves, device)

    def _graphs(self) -> list[nn.Module]:
        """Modules whose graph is called instead of those in them."""
        return [self]

    def _called(self) -> list[tuple[Runnable, _Root]]:
        """What is called in evaluation mode, and on what."""
        return [] if self._state.evaluation is None else [(self._state.evaluation, self._state.root)]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move or cast; dtypes that the original asked its parameters for are captured as they were, which is said."""
        before, captured = _precision(self), self._state.precision
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (now := _precision(self)) not in (before, captured):
            named = [
                name
                for runnable, root in self._called()
                for graph in (runnable.graph, *root.inner_graphs())
                for name, dtype in written_dtypes(graph)
                if dtype == captured
            ]
            if named:
                warnings.warn(
                    f"the graph of this hybrid names {captured} in {len(named)} of its calls ({', '.join(sorted(set(named)))}), which "
                    f"casting it to {now} does not change: where the model's code took it from a parameter or an input, results are less "
                    f"precise, or operators refuse. Cast the model before it is compiled: qcascade.compile(model.to({now})).",
                    stacklevel=3,
                )
        return self

    def _begin(self, stacklevel: int) -> None:
        """A call begins: what changes nothing is warned of; in training gradients' circuits leave with the forward pass."""
        state = self._state
        state.hooks.warn(self._graphs, stacklevel + 1)
        state.modes.warn(self, self._graphs, stacklevel + 1)
        state.swaps.warn(self, self._graphs, stacklevel + 1)
        if isinstance(state.executor, Offloading):
            state.executor.begin(self.training)
        elif isinstance(state.executor, DispatchedExecutor):
            state.executor.gradients_ahead = state.executor.ahead and self.training
        if state.executor is not None:
            state.first_run, state.began = state.executor.runs, time.perf_counter()

    def _in_parts(self, most: int, runnable: Runnable, leaves: list[Any], device: torch.device) -> Any:
        """In micro-batches."""
        root, interface = self._state.root, self._state.interface
        parts = interface.parts(leaves, most)
        if len(parts) < 2:
            return runnable(root, leaves, device)
        results = take_turns([functools.partial(runnable, root, part, device) for part in parts])
        return joined(results, [interface.rows(part) for part in parts])

    def get_submodule(self, target: str) -> nn.Module:
        """A part of the module tree, by dotted path; names of the tree come before those of this class."""
        if not target:
            return self
        return self._state.root.get_submodule(target)

    @property
    def _state(self) -> _State:
        state: _State = self.__dict__["_qcascade"]
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> HybridModule:
        """An independent copy, which can be distilled too."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        made._state.root.bind(made)
        return made

    def _replicate_for_data_parallel(self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        state = replica.__dict__["_qcascade"] = copy.copy(self._state)
        state.root = state.root.bound(replica)
        return replica

    def __getstate__(self) -> dict[str, Any]:
        state = copy.copy(self._state)
        state.replaced = {}  # saved hybrids are for use, not for distilling
        return {**self.__dict__, "_qcascade": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._state.root = self._state.root.bound(self)  # a shallow copy's state is its own, the root is not yet
        self.__class__ = _called_like(type(self), self._state.interface.signature, indexed=self._state.indexed)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        kind = type(self).__dict__.get("_kind", type(self))
        return HybridModule.__new__, (kind,), self.__getstate__()


def _called_like(kind: type[HybridModule], signature: inspect.Signature, *, indexed: bool) -> type[HybridModule]:
    """The class with a forward of this signature: trainers read from it which columns of the data a model takes.

    With `indexed` it also is indexed and iterated, as an `nn.Sequential` is.
    """

    def forward(self: HybridModule, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, *args, **kwargs)

    name = "self"
    while name in signature.parameters:
        name += "_"
    own = inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = signature.replace(parameters=(own, *signature.parameters.values()))  # type: ignore[attr-defined]
    forward.__doc__ = kind.forward.__doc__
    body = {"forward": forward, "_kind": kind, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (Items, kind) if indexed else (kind,), body)


def _precision(module: nn.Module) -> torch.dtype | None:
    """The dtype of the first parameter that holds floating-point numbers."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), None)


@dataclass
class _State:
    """What a hybrid holds beside its module tree."""

    root: _Root
    evaluation: Runnable | None  # None: the original's own forward runs (`module_hybrid`)
    training: Runnable | None
    interface: Interface
    kernels: dict[str, str]  # region name -> path of its kernel
    plan: PartitionPlan
    replaced: dict[str, fx.GraphModule]  # the regions as they were, for `distill`
    target: Target  # what the plan was made for
    hooks: HookWatch
    swaps: SwapWatch
    precision: torch.dtype | None  # of the parameters, when captured
    indexed: bool  # the original is an `nn.Sequential`
    modes: ModeWatch = field(default_factory=ModeWatch)
    executor: Executor | Offloading | None = None  # None: simulated exactly
    first_run: int = 0  # number of the executor's first run for the last call
    began: float = 0.0  # when the last call did, by `time.perf_counter`
