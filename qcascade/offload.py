"""Dynamic offloading: at run time, each kernel's steps go to a device, a cluster or exact simulation here, whichever is best now.

What comes in: named places (`Dynamic`), the hybrid's kernels and plan. What goes out: for every kernel an executor that hands each
of its calls to the place chosen for the step, and a record of every change (`dispatch.Switch`). A step is one call of the hybrid with
its backward pass. It stays at one place: what a forward pass ran somewhere is differentiated there. Only where a place fails during a
forward pass, the calls from there on go elsewhere; nothing of the call that failed is used. A backward pass that fails raises.

What a step takes is predicted by the plan's cost models (`cost_models.place`; the plan's own seconds for exact simulation here), for
the circuits of the kernel's last step, and corrected by what was measured: the time in which at least one of the kernel's calls was under
way, its queueing included. How a place is chosen is in `dispatch.choice`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qcascade.circuits.template import CircuitTemplate
from qcascade.cost_models.place import Work, forecast
from qcascade.dispatch.choice import OBJECTIVES, Choice, Offer, Rules, Switch
from qcascade.dispatch.dispatcher import DispatchedExecutor
from qcascade.engine import Program, simulate, watched
from qcascade.errors import BackendError, ExecutionError
from qcascade.executors import Executor, Run, measured
from qcascade.executors.base import _HISTORY
from qcascade.executors.placed import Metered, PlacedExecutor
from qcascade.plan import PartitionPlan

_OFFERS = 1000  # forecasts that are kept
_log = logging.getLogger("qcascade")


@dataclass(frozen=True, slots=True)
class Dynamic:
    """Places among which a hybrid chooses at run time, kernel by kernel: `hybrid.use(Dynamic({...}))`.

    Args:
        places: By name: "statevector" (exact simulation here), "shots", "noisy" or any `Executor`, in the order of preference.
        objective: "seconds": the fastest place, queueing included; "price": the cheapest, of equals the fastest; "first": the first
            place that takes at most `max_seconds` a step.
        max_seconds: Of a kernel's step, for "first".
        min_fidelity: Places whose predicted fidelity is less, or not known, are not used.
        hysteresis: A place is left only for one that is better by more than this factor…
        patience: … for so many steps in a row.
        weight: Of a new measurement in the running mean, in (0, 1].
        explore: Steps after which a place that was not used is looked at again; None: never.
        cooldown: Steps that a place is left out after a failure.
        fidelity: Of places that no cost model knows, by name, such as 1.0 for a simulator of your own.

    Raises:
        ExecutionError: A value is out of range.

    Example:
        >>> from qcascade.executors import ShotsExecutor
        >>> Dynamic({"sampled": ShotsExecutor(100), "local": "statevector"}, min_fidelity=0.9).patience
        3
    """

    places: Mapping[str, str | Executor]
    objective: str = "seconds"
    max_seconds: float | None = None
    min_fidelity: float | None = None
    hysteresis: float = 1.5
    patience: int = 3
    weight: float = 0.3
    explore: int | None = 200
    cooldown: int = 20
    fidelity: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.places, Mapping) or len(self.places) < 2:
            raise ExecutionError(
                "Dynamic(places=…): at least two places by name are needed, such as {'device': executor, 'local': 'statevector'}."
            )
        for name, place in self.places.items():
            if not isinstance(name, str) or not isinstance(place, str | Executor) or isinstance(place, PlacedExecutor):
                raise ExecutionError(
                    f"place {name!r} is {type(place).__name__}; 'statevector', 'shots', 'noisy' or an Executor is accepted."
                )
        if self.objective not in OBJECTIVES:
            raise ExecutionError(f"Dynamic(objective={self.objective!r}): choose one of {', '.join(OBJECTIVES)}.")
        if (self.objective == "first") != (self.max_seconds is not None):
            raise ExecutionError("Dynamic: objective='first' and max_seconds belong together; give both or none.")
        accepted = {
            "max_seconds": (self.max_seconds is None or self.max_seconds > 0, "a positive number"),
            "min_fidelity": (self.min_fidelity is None or 0 <= self.min_fidelity <= 1, "a number from 0 to 1"),
            "hysteresis": (self.hysteresis >= 1, "a factor of at least 1"),
            "patience": (isinstance(self.patience, int) and self.patience >= 1, "a whole number of at least 1"),
            "weight": (0 < self.weight <= 1, "a number above 0, at most 1"),
            "explore": (self.explore is None or self.explore >= 1, "a whole number of at least 1, or None"),
            "cooldown": (self.cooldown >= 1, "a whole number of at least 1"),
        }
        for name, (fine, what) in accepted.items():
            if not fine:
                raise ExecutionError(f"Dynamic({name}={getattr(self, name)!r}): {what} is accepted.")
        if unknown := sorted(set(self.fidelity) - set(self.places)):
            raise ExecutionError(
                f"Dynamic(fidelity=…) names {', '.join(unknown)}; places are {', '.join(self.places)}."
            )

    @property
    def rules(self) -> Rules:
        """How places are chosen."""
        return Rules(**{one.name: getattr(self, one.name) for one in fields(Rules)})


@dataclass(slots=True, eq=False)
class _Bill:
    """What one kernel did in one step."""

    step: int
    place: str
    work: list[Work] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)  # beginnings and ends
    gradients: bool = False
    submissions: int = 0
    void: bool = False  # a failure: seconds say nothing
    closed: bool = False


class Offloading:
    """The places of a hybrid at run time; made by `HybridModule.use`.

    Attributes:
        history: The last thousand `Run`s of all kernels, oldest first, with their kernel and place.
        switches: All changes so far, oldest first.
    """

    def __init__(
        self,
        settings: Dynamic,
        places: Mapping[str, Executor | None],
        kernels: list[str],
        plan: PartitionPlan,
        microbatches: int = 1,
    ) -> None:
        self.settings, self.executors, self.microbatches = settings, dict(places), microbatches
        self.history: deque[Run] = deque(maxlen=_HISTORY)
        self.runs = self.step = 0
        self.switches: list[Switch] = []
        self._choices = {name: Choice(name, tuple(places), settings.rules) for name in kernels}
        self._exact = {name: _exact_seconds(plan, name) for name in kernels}
        self._bills: dict[str, _Bill] = {}
        self._last: dict[tuple[str, bool], tuple[Work, ...]] = {}  # by kernel and whether with gradients
        self._offers: dict[tuple[str, str, tuple[Work, ...], bool], Offer] = {}
        self._noted = dict.fromkeys(kernels, 0)
        self._lock = threading.RLock()

    @property
    def places(self) -> dict[str, str | None]:
        """The place of every kernel; None before its first step."""
        return {name: choice.place for name, choice in self._choices.items()}

    def executor(self, kernel: str) -> PlacedExecutor:
        """What runs one kernel's circuits."""
        return _Placed(self, kernel)

    def begin(self, training: bool) -> None:
        """A step begins; what the last one took is added to what is known."""
        with self._lock:
            for kernel, bill in self._bills.items():
                self._close(kernel, bill)
            self._bills.clear()
            self.step += 1
            for executor in self.executors.values():
                if isinstance(executor, DispatchedExecutor):
                    executor.gradients_ahead = executor.ahead and training

    def bill(self, kernel: str, work: Work, gradients: bool) -> _Bill:
        """The kernel's account of this step, its place decided."""
        with self._lock:
            bill = self._bills.get(kernel)
            if bill is None:
                expected = self._last.get((kernel, gradients)) or (work,)
                place = self._decided(kernel, expected, gradients)
                bill = self._bills[kernel] = _Bill(self.step, place)
            bill.work.append(work)
        return bill

    def failed(self, kernel: str, bill: _Bill, error: BackendError, work: Work, gradients: bool) -> _Bill:
        """The account of the rest of the step, elsewhere.

        Raises:
            BackendError: There is no other place.
        """
        with self._lock:
            now = self._bills.get(kernel)
            if now is not bill and now is not None:
                now.work.append(work)
                return now  # another part of the batch found out before
            bill.void = True
            choice = self._choices[kernel]
            choice.failed(self.step, bill.place, str(error).split(". ")[0][:200])
            if not choice.left(self.step):
                raise error
            place = self._decided(kernel, (work,), gradients)
            self._bills[kernel] = _Bill(self.step, place, [work], void=True)
            return self._bills[kernel]

    def told(self, kernel: str, bill: _Bill, run: Run) -> None:
        """A run has ended."""
        with self._lock:
            if run.place is None:
                run = replace(run, kernel=kernel, place=bill.place)
            self.history.append(run)
            self.runs += 1
            if bill.closed:
                return
            bill.times.append((run.started, run.started + run.seconds))
            bill.gradients = bill.gradients or "gradients" in run.purpose
            bill.submissions += run.submissions
            if run.simulated:
                bill.void = True
                why = next(
                    (note for note in run.notes if note.startswith("simulated")), "circuits were simulated instead"
                )
                self._choices[kernel].failed(bill.step, bill.place, why[:200])

    def _decided(self, kernel: str, work: tuple[Work, ...], gradients: bool) -> str:
        choice = self._choices[kernel]
        offers = {place: self._offer(kernel, place, work, gradients) for place in self.executors}
        place = choice.decide(self.step, offers)
        for switch in choice.switches[self._noted[kernel] :]:
            self.switches.append(switch)
            (_log.warning if switch.lasting and switch.before is not None else _log.info)("%s", switch)
        self._noted[kernel] = len(choice.switches)
        return place

    def _offer(self, kernel: str, place: str, work: tuple[Work, ...], gradients: bool) -> Offer:
        key = (kernel, place, work, gradients)
        if key not in self._offers:
            if len(self._offers) >= _OFFERS:
                self._offers.clear()
            self._offers[key] = self._offered(kernel, place, work, gradients)
        return self._offers[key]

    def _offered(self, kernel: str, place: str, work: tuple[Work, ...], gradients: bool) -> Offer:
        executor, stated = self.executors[place], self.settings.fidelity.get(place)
        if executor is None:
            rate, circuits = self._exact[kernel][gradients], sum(one.circuits for one in work)
            return Offer(circuits * (rate or 1.0), rate is not None)
        inner = executor.inner if isinstance(executor, DispatchedExecutor) else executor
        found = forecast(work, inner, gradients=gradients)
        return Offer(
            found.circuits if found.seconds is None else found.seconds,
            found.seconds is not None,
            found.price,
            found.fidelity if stated is None else stated,
            found.refused,
        )

    def _close(self, kernel: str, bill: _Bill) -> None:
        bill.closed = True
        if bill.work:
            self._last[kernel, bill.gradients] = tuple(bill.work)
        known = self.executors[bill.place] is not None and not bill.submissions  # all results were there already
        if bill.void or known or not bill.times:
            return
        offer = self._offer(kernel, bill.place, tuple(bill.work), bill.gradients)
        self._choices[kernel].measured(bill.step, bill.place, _covered(bill.times), offer.scale)

    def __deepcopy__(self, memo: dict[int, Any]) -> Offloading:
        return self  # copies of a model use the same places

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_bills": {}, "_last": {}, "_offers": {}, "history": None, "runs": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), history=deque(maxlen=_HISTORY))


class _Placed(PlacedExecutor):
    """One kernel's executor."""

    def __init__(self, offloading: Offloading, kernel: str) -> None:
        super().__init__(None)
        self.offloading, self.kernel = offloading, kernel

    @property
    def method(self) -> str:
        """Where it runs now."""
        return f"at {self.offloading.places[self.kernel]}"

    @property
    def history(self) -> deque[Run]:
        """That of all kernels."""
        return self.offloading.history

    @history.setter
    def history(self, value: object) -> None:
        """`Executor` sets one of its own, which is not used."""

    @property
    def runs(self) -> int:
        """Those of all kernels."""
        return self.offloading.runs if "offloading" in self.__dict__ else 0

    @runs.setter
    def runs(self, value: object) -> None:
        """As for `history`."""

    def measured(
        self,
        template: CircuitTemplate,
        program: Program,
        *,
        data: Tensor | None = None,
        weights: Tensor | None = None,
        amplitudes: Tensor | None = None,
        squeeze: bool = False,
    ) -> Tensor:
        """As `sampled.measured`, at the place of this step."""
        if watched():
            raise ExecutionError(
                "places are chosen outside of torch, so that torch cannot export, compile or transform the hybrid; call "
                "use('statevector') first."
            )
        given = {"data": data, "weights": weights, "amplitudes": amplitudes}
        gradients = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given.values())
        work = Work(template, _bindings(data, weights, amplitudes))
        bill = self.offloading.bill(self.kernel, work, gradients)
        while True:
            executor = self.offloading.executors[bill.place]
            tell = partial(self.offloading.told, self.kernel, bill)
            try:
                if executor is None or executor.adjoint:
                    names = (self.kernel, bill.place)
                    return _simulated(
                        executor, program, template, given, squeeze, work.bindings, gradients, tell, names
                    )
                return measured(Metered(executor, tell), template, program, **given, squeeze=squeeze)
            except BackendError as error:
                bill = self.offloading.failed(self.kernel, bill, error, work, gradients)


def _bindings(data: Tensor | None, weights: Tensor | None, amplitudes: Tensor | None) -> int:
    """Sets times examples, as `engine.simulate` counts them."""
    sets = [t.shape[0] for t, flat in ((data, 2), (weights, 1), (amplitudes, 2)) if t is not None and t.dim() > flat]
    batch = [t.shape[-2] for t in (data, amplitudes) if t is not None]
    return max(sets, default=1) * max(batch, default=1)


def _simulated(
    executor: Executor | None, program: Program, template: CircuitTemplate, given: Mapping[str, Tensor | None], squeeze: bool,
    bindings: int, gradients: bool, tell: Callable[[Run], None], names: tuple[str, str],
) -> Tensor:  # fmt: skip
    """Exact simulation by the engine, here or by the executor's workers, forward and backward pass timed."""
    name, run = ("statevector", simulate) if executor is None else (executor.name, executor.simulate)
    kernel, place = names

    def said(purpose: str, started: float) -> None:
        seconds = time.perf_counter() - started
        tell(Run(
            name, None, "exact state", purpose, bindings, 0, None, seconds, 0.0, started=started, kernel=kernel, place=place
        ))  # fmt: skip

    clock = _Clock()
    moved = [name for name, t in given.items() if t is not None and t.requires_grad] if gradients else []
    tensors = dict(given)
    if moved:
        ended = lambda: said("gradients", clock.started)  # noqa: E731
        opened = _Ends.apply(ended, *(given[name] for name in moved))  # type: ignore[no-untyped-call]
        tensors.update(zip(moved, opened, strict=True))
    started = time.perf_counter()
    values = run(program, template.measurement, **tensors, squeeze=squeeze)
    said("values", started)
    if moved:
        values.register_hook(clock.begins)
    return values


@dataclass(slots=True)
class _Clock:
    """When the gradients of a call's circuits began."""

    started: float = 0.0

    def begins(self, gradient: Tensor) -> None:
        self.started = time.perf_counter()


class _Ends(torch.autograd.Function):
    """The identity, before the circuits: its backward is where their gradients are there."""

    @staticmethod
    def forward(ctx: Any, ended: Callable[[], None], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.ended = ended
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        ctx.ended()
        return None, *gradients


def _covered(times: list[tuple[float, float]]) -> float:
    """Seconds in which at least one of these was under way.

    Example:
        >>> _covered([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)])
        4.0
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(times):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _exact_seconds(plan: PartitionPlan, kernel: str) -> tuple[float | None, float | None]:
    """Seconds a circuit of a forward pass, and of one with its backward pass, as the plan predicts for exact simulation here."""
    region = plan[kernel]
    for candidate in region.candidates:
        costs = candidate.costs
        if candidate.kernel == region.kernel and costs.circuits_forward and costs.seconds_simulated is not None:
            training = costs.seconds_simulated_training
            return costs.seconds_simulated / costs.circuits_forward, (
                None if training is None else training / costs.circuits_forward
            )
    return None, None
