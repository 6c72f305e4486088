"""What executors that stand before another one have in common: they are to callers what that one is."""

from __future__ import annotations

from typing import Any

from qcascade.circuits.angles import AngleCircuit
from qcascade.circuits.template import CircuitTemplate
from qcascade.executors.base import Executor
from qcascade.executors.mitigation import Plan


class DelegatingExecutor(Executor):
    """An executor before another one: its settings, circuits and names are those of the inner one.

    Args:
        inner: What runs circuits.

    Attributes:
        inner: The same.
    """

    name = "delegating"
    exact = True

    def __init__(self, inner: Executor) -> None:
        super().__init__(
            inner.shots,
            gradients=inner.gradients,
            spsa_step=inner.spsa_step,
            spsa_samples=inner.spsa_samples,
            seed=inner.seed,
        )
        self.name = inner.name  # type: ignore[misc]  # runs are the inner one's
        self.inner = inner

    @property
    def method(self) -> str:
        """How samples come about."""
        return self.inner.method

    @property
    def target(self) -> Any:
        """The inner executor's, where it has one."""
        return getattr(self.inner, "target", None)

    @property
    def target_name(self) -> str | None:
        """The device's name; None where there is none."""
        return self.inner.target_name

    @property
    def overhead(self) -> int:
        """Circuits that mitigation runs for each one asked for."""
        return self.inner.overhead

    @property
    def mitigation_plan(self) -> Plan:
        """What the inner executor's mitigation does."""
        return self.inner.mitigation_plan

    @property
    def identity(self) -> str:
        """The inner executor's: the results are."""
        return self.inner.identity

    def prepare(self, template: CircuitTemplate) -> AngleCircuit:
        """The inner executor's circuit."""
        return self.inner.prepare(template)

    def _prepare(self, template: CircuitTemplate) -> AngleCircuit:
        return self.inner.prepare(template)
