"""Where a kernel's next step runs: by predicted and measured seconds, price and fidelity, with hysteresis.

What comes in: for every place an `Offer`, what a cost model predicts for the coming step, and what steps took, as they end.
What goes out: a place for every step, and a `Switch` with its reason for every change. Nothing but those figures and the number of
the step is looked at, no clock, so that the same measurements give the same decisions.

Estimates. A place's seconds are its offer's times a factor that is learnt: the exponentially weighted mean, in logarithms, of
measured over predicted seconds. Queues are in what is measured. A first measurement replaces the model's word, a second one replaces
the first, in which circuits were compiled; after a gap of n steps a measurement weighs 1 − (1 − weight)^n. Where there is
no model, the offer is a number of circuits, and two steps measure what one takes.

Changes. Another place is taken when it is better by more than the factor `hysteresis` for `patience` steps in a row. So while all
measurements of a place stay within a band, no wider than the hysteresis, in which neither place is better by more than it, nothing
changes. A place that was not measured for `explore` steps is looked at again, for at most `patience` steps and no longer than it is
better; after each look in vain the next waits twice as long (up to 16 times). A place that fails is left out for `cooldown` steps,
and twice as long after each further failure in a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qcascade.errors import ExecutionError

OBJECTIVES = ("seconds", "price", "first")
_LONGEST = 16  # times that an interval is prolonged at most


@dataclass(frozen=True, slots=True)
class Offer:
    """A kernel's next step at one place, as predicted. None: not known."""

    scale: float  # seconds by a cost model; circuits where there is none
    modelled: bool
    price: float | None = 0.0
    fidelity: float | None = 1.0  # of the least faithful circuit
    refused: str | None = None  # why it cannot run there at all


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of place."""

    step: int  # of the hybrid's calls, from 1
    kernel: str
    before: str | None  # None: the first place
    after: str
    reason: str  # one sentence with the numbers
    lasting: bool = True  # False: a look at a place, and the way back from it

    def __str__(self) -> str:
        start = f"{self.before} → {self.after}" if self.before is not None else self.after
        return f"step {self.step}, {self.kernel}: {start}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Rules:
    """How places are chosen: what `offload.Dynamic` says, explains and checks."""

    objective: str
    max_seconds: float | None
    min_fidelity: float | None
    hysteresis: float
    patience: int
    weight: float
    explore: int | None
    cooldown: int


@dataclass(slots=True)
class _Known:
    """What was measured at a place."""

    level: float = 0.0  # logarithm of measured over predicted
    count: int = 0
    seen: int = 0  # step of the last measurement
    last: int = 0  # step of the last measurement, look or failure
    looks: int = 0  # looks in vain in a row
    failures: int = 0  # in a row
    until: int = 0  # left out before this step
    why: str = ""


@dataclass(slots=True)
class Choice:
    """The places of one kernel.

    Example:
        >>> rules = Rules("seconds", None, None, hysteresis=1.5, patience=3, weight=0.3, explore=None, cooldown=20)
        >>> choice = Choice("head", ("device", "local"), rules)
        >>> choice.decide(1, {"device": Offer(2.0, True), "local": Offer(1.0, True)})
        'local'
        >>> print(choice.switches[0])
        step 1, head: local: predicted 1 s, device 2 s
    """

    kernel: str
    places: Sequence[str]
    rules: Rules
    place: str | None = None
    switches: list[Switch] = field(default_factory=list)
    _known: dict[str, _Known] = field(init=False)
    _streak: tuple[str, int] = ("", 0)  # a better place, and for how many steps in a row
    _home: str | None = None  # where a look started from
    _looked: int = 0  # steps of the look
    _offers: Mapping[str, Offer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = {place: _Known() for place in self.places}

    def estimate(self, place: str, offer: Offer) -> float | None:
        """Seconds of a step; None where neither a model nor a measurement says."""
        known = self._known[place]
        return offer.scale * math.exp(known.level) if offer.modelled or known.count else None

    def measured(self, step: int, place: str, seconds: float, scale: float) -> None:
        """A step at a place took so many seconds, for what the offer's model predicts `scale`."""
        known = self._known[place]
        ratio = math.log(max(seconds, 1e-9) / max(scale, 1e-12))
        gap = max(1, step - known.seen)
        weight = 1.0 if known.count < 2 else 1 - (1 - self.rules.weight) ** gap
        known.level += weight * (ratio - known.level)
        known.count, known.failures, known.seen, known.last = known.count + 1, 0, step, step

    def failed(self, step: int, place: str, why: str) -> None:
        """A place could not run a step."""
        known = self._known[place]
        known.until = step + 1 + self.rules.cooldown * min(2**known.failures, _LONGEST)
        known.failures, known.last, known.why = known.failures + 1, step, why

    def left(self, step: int) -> list[str]:
        """Places to which a step that failed may still go: those that did not fail lately."""
        return [place for place in self._allowed() if step >= self._known[place].until]

    def decide(self, step: int, offers: Mapping[str, Offer]) -> str:
        """The place of a step; also after a failure in it.

        Raises:
            ExecutionError: No place may run it.
        """
        self._offers = offers
        usable = self._usable(step)
        if self.place not in usable:
            self._leave(step, usable)
        elif self._home is not None:
            self._go_on_looking(step, usable)
        elif not self._look_at_unknown(step, usable):
            self._compare(step, usable)
        assert self.place is not None
        return self.place

    def _usable(self, step: int) -> list[str]:
        """Places that may be used now, in their order; where all have failed lately, the one to be tried first again."""
        return self.left(step) or [min(self._allowed(), key=lambda place: self._known[place].until)]

    def _allowed(self) -> list[str]:
        """Places that the rules allow, failed or not."""
        allowed, reasons = [], []
        for place in self.places:
            offer, least = self._offers[place], self.rules.min_fidelity
            if offer.refused is not None:
                reasons.append(f"{place}: {offer.refused}")
            elif least is not None and (offer.fidelity is None or offer.fidelity < least):
                what = "is not known" if offer.fidelity is None else f"is {offer.fidelity:.3g}"
                reasons.append(f"{place}: its fidelity {what}, and min_fidelity={least:g}")
            elif self.rules.objective == "price" and offer.price is None:
                reasons.append(f"{place}: its price is not known, and objective='price'")
            else:
                allowed.append(place)
        if not allowed:
            raise ExecutionError(
                f"no place may run {self.kernel}: {'; '.join(reasons)}. Add a place, such as 'statevector'."
            )
        return allowed

    def _leave(self, step: int, usable: list[str]) -> None:
        """The first place, or another one at once because the present one cannot be used."""
        before, self._home, self._streak = self.place, None, ("", 0)
        best = self._best(usable)
        if before is None:
            others = [self._told(place) for place in self.places if place != best]
            word = "predicted " + self._seconds(best) if self._offers[best].modelled else "the first to be measured"
            return self._move(step, best, ", ".join([word, *others]))
        known, offer = self._known[before], self._offers[before]
        if step < known.until:
            why = f"{before} failed ({known.why}) and is left out until step {known.until}"
        elif offer.refused is not None:
            why = f"{before}: {offer.refused}"
        else:
            why = f"{before} has a fidelity of {_number(offer.fidelity)}, and min_fidelity={self.rules.min_fidelity}"
        return self._move(step, best, f"{why}; {self._told(best)}")

    def _look_at_unknown(self, step: int, usable: list[str]) -> bool:
        """Two steps at each place of which no model says anything."""
        assert self.place is not None
        here = self._known[self.place]
        if not self._offers[self.place].modelled and here.count < 2 and not here.looks:
            return True  # stays until it is known
        for place in usable:
            known = self._known[place]
            in_vain = known.looks and (self.rules.explore is None or step - known.last < self._interval(place))
            if not self._offers[place].modelled and known.count < 2 and not in_vain:
                self._start_looking(step, place, "no model says what it takes: measured")
                return True
        return False

    def _start_looking(self, step: int, place: str, reason: str) -> None:
        self._home, self._looked = self.place, 1
        self._move(step, place, reason, lasting=False)

    def _go_on_looking(self, step: int, usable: list[str]) -> None:
        place, home = self.place, self._home
        assert place is not None and home is not None
        known, unknown = self._known[place], not self._offers[place].modelled and self._known[place].count < 2
        if unknown and self._looked < self.rules.patience + 2:
            self._looked += 1
            return
        if home in usable and not self._better(place, home):
            known.looks, known.last, self._home = known.looks + 1, step, None
            self._move(step, home, f"{self._told(place)}, {home} {self._seconds(home)}", lasting=False)
        elif home not in usable or self._looked >= self.rules.patience:
            known.looks, self._home = 0, None
            self._note(step, home, place, f"{self._told(place)} when looked at, {home} {self._seconds(home)}")
        else:
            self._looked += 1

    def _compare(self, step: int, usable: list[str]) -> None:
        here = self.place
        assert here is not None
        others = [place for place in usable if place != here and self._better(place, here)]
        best = self._best(others) if others else None
        count = self._streak[1] + 1 if best == self._streak[0] else 1
        self._streak = (best, count) if best is not None else ("", 0)
        if best is not None and count >= self.rules.patience:
            self._streak = ("", 0)
            self._known[best].looks = self._known[here].looks = 0
            steps = "" if count == 1 else f" for {count} steps in a row"
            figures = f"{self._told(best)}, {here} {self._seconds(here)}"
            self._move(step, best, f"{figures},{steps} better by more than {self.rules.hysteresis:g}")
        elif best is None and self.rules.explore is not None:
            waits = {p: step - self._known[p].last - self._interval(p) for p in usable if p != here}
            stale = max(waits, key=lambda p: (waits[p], -self.places.index(p)), default=None)
            if stale is not None and waits[stale] >= 0:
                since = step - self._known[stale].seen
                self._known[stale].last = step
                self._start_looking(
                    step,
                    stale,
                    f"not measured for {since} steps, last known as {self._seconds(stale)}: looked at again",
                )

    def _interval(self, place: str) -> int:
        assert self.rules.explore is not None
        return self.rules.explore * int(min(2 ** self._known[place].looks, _LONGEST))

    def _best(self, places: Sequence[str]) -> str:
        """The best by the objective, without hysteresis; those of which nothing is known come last."""
        best = places[0]
        for place in places[1:]:
            if self._better(place, best, 1.0):
                best = place
        return best

    def _better(self, one: str, other: str, factor: float | None = None) -> bool:
        """Whether one place is better than another by more than a factor, the hysteresis by default."""
        factor = self.rules.hysteresis if factor is None else factor
        a, b = (self.estimate(place, self._offers[place]) for place in (one, other))
        if a is None or b is None:
            return b is None and a is not None
        if self.rules.objective == "price":
            first, second = self._offers[one].price, self._offers[other].price
            if first is not None and second is not None and first != second:
                return first * factor < second
        if self.rules.objective == "first" and self.rules.max_seconds is not None:
            most = self.rules.max_seconds
            if self.places.index(one) < self.places.index(other):
                return a * factor < most
            return b > most * factor and (a * factor < most or a * factor < b)
        return a * factor < b

    def _seconds(self, place: str) -> str:
        seconds = self.estimate(place, self._offers[place])
        return "unknown" if seconds is None else f"{seconds:.3g} s"

    def _told(self, place: str) -> str:
        """A place with all its figures that are known and say something."""
        offer = self._offers[place]
        if offer.refused is not None:
            return f"{place} refused"
        parts = [self._seconds(place)]
        if offer.price:
            parts.append(f"price {offer.price:.3g}")
        if offer.fidelity is not None and offer.fidelity != 1:
            parts.append(f"fidelity {offer.fidelity:.3g}")
        return f"{place} {' '.join(parts)}"

    def _move(self, step: int, place: str, reason: str, *, lasting: bool = True) -> None:
        if place != self.place:
            self._note(step, self.place, place, reason, lasting=lasting)
            self.place = place

    def _note(self, step: int, before: str | None, after: str, reason: str, *, lasting: bool = True) -> None:
        self.switches.append(Switch(step, self.kernel, before, after, reason, lasting))


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
