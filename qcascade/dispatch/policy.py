"""What a dispatcher may do and spend: deadline, retries, breaker, fall-back, partial shots, budgets.

Fetching may be retried freely, submitting only against the record; see `dispatch.dispatcher`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Literal

from qcascade.errors import ExecutionError


@dataclass(frozen=True, slots=True)
class Policy:
    """How jobs are run, and what they may cost.

    Args:
        deadline: Seconds from a job's submission to its results; after them it is cancelled, and falls back. Infinity: none.
        retries: How often a submission that did not arrive, or a fetch that failed, is tried again.
        backoff: Seconds before the first retry; each further one waits twice as long, at most a minute, with jitter.
        breaker: Failures in a row after which nothing is tried for `cooldown` seconds; then one job is.
        cooldown: Seconds.
        fallback: What happens to circuits that the device did not run: "strict" raises, "simulate" draws as many shots
            from the exact state, and says so in the `Run` and the journal.
        least_shots: Share of the shots that is accepted; a circuit that got fewer counts as failed.
        uncertain: What happens where it is not known if a submission arrived, and the backend cannot be asked: "stop"
            raises, "resubmit" risks paying twice.
        max_shots: In all submissions of the journal, or of the dispatcher where there is none.
        max_price: Likewise, in the currency of the target's price.
        max_jobs: Likewise.

    Raises:
        ExecutionError: A value is out of range.

    Example:
        >>> Policy(deadline=600, fallback="simulate", max_shots=10**6).retries
        5
    """

    deadline: float = 86400.0
    retries: int = 5
    backoff: float = 0.5
    breaker: int = 5
    cooldown: float = 60.0
    fallback: Literal["strict", "simulate"] = "strict"
    least_shots: float = 0.0
    uncertain: Literal["stop", "resubmit"] = "stop"
    max_shots: int | None = None
    max_price: float | None = None
    max_jobs: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("deadline", None), ("retries", 0), ("backoff", 0), ("breaker", 1), ("cooldown", 0)):
            value = getattr(self, name)
            if not _is_number(value) or (value <= 0 if least is None else value < least):
                accepted = "a positive number" if least is None else f"a number of at least {least}"
                raise ExecutionError(f"Policy({name}={value!r}): {accepted} is accepted.")
        for name in ("retries", "breaker"):
            if not isinstance(getattr(self, name), Integral):
                raise ExecutionError(f"Policy({name}={getattr(self, name)!r}): a whole number is accepted.")
        for name, choices in (("fallback", ("strict", "simulate")), ("uncertain", ("stop", "resubmit"))):
            if getattr(self, name) not in choices:
                raise ExecutionError(f"Policy({name}={getattr(self, name)!r}): choose one of {', '.join(choices)}.")
        if not _is_number(self.least_shots) or not 0 <= self.least_shots <= 1:
            raise ExecutionError(f"Policy(least_shots={self.least_shots!r}): a share from 0 to 1 is accepted.")
        for name in (field.name for field in fields(self) if field.name.startswith("max_")):
            limit = getattr(self, name)
            if limit is not None and (not _is_number(limit) or limit < 0):
                raise ExecutionError(f"Policy({name}={limit!r}): a number from 0, or None for no limit, is accepted.")

    @property
    def limited(self) -> bool:
        """Whether anything may be bought up to a limit only."""
        return any(limit is not None for limit in (self.max_shots, self.max_price, self.max_jobs))

    def pause(self, attempt: int, jitter: float) -> float:
        """Seconds before retry number `attempt` (from 0); `jitter` in [0, 1) takes up to half of them away.

        Example:
            >>> [Policy(backoff=1).pause(attempt, 0.0) for attempt in (0, 1, 2, 10)]
            [1.0, 2.0, 4.0, 60.0]
        """
        return min(60.0, float(self.backoff) * 2.0 ** min(attempt, 30)) * (1 - jitter / 2)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


class Breaker:
    """Closed, it lets everything pass; after failures in a row it opens; after a while it lets one try pass.

    Example:
        >>> breaker = Breaker(failures=1, cooldown=60)
        >>> breaker.failed(); breaker.passes()
        False
    """

    def __init__(self, failures: int, cooldown: float) -> None:
        self.failures, self.cooldown = failures, cooldown
        self._count, self._opened = 0, 0.0
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether there were too many failures since the last success."""
        return self._count >= self.failures

    def passes(self) -> bool:
        """Whether to try now; while it is open, one try passes per cool-down."""
        with self._lock:
            if self._count < self.failures:
                return True
            if time.monotonic() - self._opened < self.cooldown:
                return False
            self._opened = time.monotonic()
            return True

    def failed(self) -> None:
        """Count a failure."""
        with self._lock:
            self._count += 1
            if self._count >= self.failures:
                self._opened = time.monotonic()

    def worked(self) -> None:
        """Forget failures."""
        with self._lock:
            self._count = 0
