"""What every quantum kernel is: an nn.Module that owns circuit templates and can say what running them takes.

A kernel of another package that is to be saved in bundles needs nothing more where its constructor takes plain values
(numbers, strings, booleans, None; annotated), all of them named, and every one is kept as an attribute of the same name.
Otherwise it overrides `arguments`. It overrides `gates` too, so that a hostile bundle cannot ask for endless circuits.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from qcascade.circuits.ansatze import ENTANGLERS
from qcascade.circuits.template import CircuitTemplate
from qcascade.engine import Program
from qcascade.errors import CircuitError, PlanError
from qcascade.executors import Executor, make_executor, measured
from qcascade.facts import RegionFacts
from qcascade.kernels.arguments import checked, plain_attributes
from qcascade.registry import Registry
from qcascade.targets import Target

MAX_GATES = 5000  # of a saved kernel's circuits: a few seconds of lowering


@dataclass(frozen=True, slots=True)
class CircuitUse:
    """One template and how a forward pass uses it."""

    template: CircuitTemplate
    bindings: int  # parameter bindings a forward pass runs (each is one circuit per measurement setting)
    weight_sets: int  # distinct sets of weights among them
    angles_per_binding: int  # classical numbers sent for each
    amplitudes_per_binding: int  # loaded amplitudes for each
    values_per_binding: int  # numbers returned by each


@dataclass(frozen=True, slots=True)
class KernelWorkload:
    """What one forward pass of a kernel takes, for the example's batch."""

    circuits: tuple[CircuitUse, ...]
    complexity: str  # in sequence length n, simulated circuits included


class QuantumKernel(nn.Module, abc.ABC):
    """A module that computes with circuits; exact simulation is its definition."""

    kernel_name: ClassVar[str]
    pattern: ClassVar[str]  # the regions it can stand in for
    adds: ClassVar[bool] = False  # True: it stands beside its region and adds to what that gives (adapters)
    on_request: ClassVar[bool] = False  # True: considered only where the user names it
    warm: ClassVar[tuple[str, ...]] = ()  # submodules whose weights `from_region` takes from the region
    defaults: ClassVar[Mapping[str, Any]] = {}  # options and their values where none is given
    executor: Executor | None = None  # None: simulated exactly

    @classmethod
    def settings(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options, those given over the defaults.

        Raises:
            PlanError: An option, or the entangler, is unknown.
        """
        if unknown := sorted(set(options) - set(cls.defaults)):
            raise PlanError(f"{cls.kernel_name} has no option {', '.join(unknown)}; it has {', '.join(cls.defaults)}.")
        if "entangler" in options:
            entangler_of(options["entangler"])
        return {**cls.defaults, **options}

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse option values that no region could be given; types have been checked.

        Raises:
            PlanError: There is one.
        """

    @classmethod
    def settings_for(cls, options: Mapping[str, Any], facts: RegionFacts, target: Target) -> dict[str, Any]:
        """All options for a region and a target, where an entangler that was left open (None) is chosen by the target.

        It is "source" where all qubits are joined; else "cycle" where the target has cycles of the circuits' widths that
        are better per entangler than its chains, and "chain" otherwise.

        Raises:
            PlanError: An option, or the entangler, is unknown.
        """
        settings = cls.settings(options)
        if "entangler" not in settings or settings["entangler"] is not None:
            return settings
        if target.all_to_all:
            return {**settings, "entangler": "source"}
        from qcascade.routing.matched import best_entangler  # slow to import, and without a device not needed

        uses = cls.workload(facts, {**settings, "entangler": "chain"}, seed=0).circuits
        return {**settings, "entangler": best_entangler(target, [use.template.qubits for use in uses])}

    @classmethod
    @abc.abstractmethod
    def refuse(cls, facts: RegionFacts, options: Mapping[str, Any]) -> str | None:
        """Why this kernel cannot stand in for the region, in one sentence with the numbers, or None."""

    @classmethod
    @abc.abstractmethod
    def blank(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> Self:
        """A kernel of the region's shape with its own random start."""

    @abc.abstractmethod
    def rehearse(self, facts: RegionFacts) -> Tensor:
        """Run on inputs of the region's shape and random content: what cost models count and benchmarks time."""

    @classmethod
    @abc.abstractmethod
    def from_region(
        cls, facts: RegionFacts, weights: Mapping[str, Tensor], options: Mapping[str, Any], *, seed: int
    ) -> Self:
        """A kernel for the region, warm-started from its weights (canonical names, nn.Linear layout)."""

    @classmethod
    @abc.abstractmethod
    def workload(cls, facts: RegionFacts, options: Mapping[str, Any], *, seed: int) -> KernelWorkload:
        """What a forward pass of the example's batch takes; builds templates but no parameters."""

    @abc.abstractmethod
    def templates(self) -> Mapping[str, CircuitTemplate]:
        """The circuits the kernel runs, by name."""

    def arguments(self) -> Mapping[str, Any]:
        """The constructor's arguments that make an equal kernel but for its parameters; JSON values.

        By default the attributes that are called like the constructor's arguments.

        Raises:
            PlanError: An attribute is missing or no JSON value: the kernel must override this.

        Example:
            >>> from qcascade.kernels import AmplitudeAdapter
            >>> AmplitudeAdapter(16, 8).arguments()["in_features"]
            16
        """
        return plain_attributes(self)

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """The kernel that `arguments` describes, with parameters of its own start.

        Every value is checked against the constructor's annotations, and integers and gates against bounds, before
        anything is built. Under `torch.device("meta")` no memory is taken either.

        Raises:
            PlanError: An argument is missing, unknown, of another type or out of range.

        Example:
            >>> from qcascade.kernels import AmplitudeAdapter
            >>> AmplitudeAdapter.from_arguments({"in_features": 16, "out_features": 8}).out_features
            8
        """
        values = checked(cls, arguments)
        if (gates := cls.gates(values)) > MAX_GATES:
            raise PlanError(
                f"{cls.kernel_name}: circuits of about {gates} gates; at most {MAX_GATES} can be saved and read."
            )
        try:
            return cls(**values)
        except (ArithmeticError, CircuitError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            raise PlanError(f"{cls.kernel_name} cannot be made of these arguments: {error}.") from error

    @classmethod
    def gates(cls, arguments: Mapping[str, Any]) -> int:
        """About how many gates the circuits of a kernel with these arguments (all of them) have, without building them."""
        return 0

    def evaluated(self) -> nn.Module:
        """A module that computes the same in evaluation mode, simulated exactly: the kernel itself, or one cheaper to export."""
        return self

    def use(self, executor: str | Executor = "statevector", **options: object) -> Self:
        """Choose how circuits run: "statevector" (exact), "shots", "noisy" (with target=), or an `Executor`.

        Raises:
            ExecutionError: The executor is unknown, or takes no such option or value.
        """
        self.executor = make_executor(executor, **options)
        return self

    def _measure(
        self,
        template: CircuitTemplate,
        program: Program,
        *,
        data: Tensor | None = None,
        weights: Tensor | None = None,
        amplitudes: Tensor | None = None,
    ) -> Tensor:
        """What a circuit of the kernel's measures [S, B, K], by the executor in use."""
        return measured(self.executor, template, program, data=data, weights=weights, amplitudes=amplitudes)


@lru_cache(maxsize=256)
def known_workload(
    kernel: type[QuantumKernel], facts: RegionFacts, options: tuple[tuple[str, Any], ...], seed: int
) -> KernelWorkload:
    """A kernel's workload, the same templates for the same question, so that their circuits are routed and counted once."""
    return kernel.workload(facts, dict(options), seed=seed)


def entangler_of(choice: str | None) -> str:
    """The entangler of a kernel's circuits; left open, it is the source's.

    Raises:
        PlanError: It is unknown.

    Example:
        >>> entangler_of(None), entangler_of("chain")
        ('source', 'chain')
    """
    if choice is not None and choice not in ENTANGLERS:
        raise PlanError(
            f"entangler={choice!r} is unknown; choose one of {', '.join(ENTANGLERS)}, or None for the target's."
        )
    return choice or "source"


KERNELS: Registry[type[QuantumKernel]] = Registry("kernel", "qcascade.kernels", PlanError)
