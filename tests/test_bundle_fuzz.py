"""A thousand mutated bundles; `make fuzz` runs a hundred thousand."""

from __future__ import annotations

from fuzz_bundle import fuzz


def test_mutated_bundles_are_refused_or_run() -> None:
    failures, outcomes = fuzz(first=0, count=1000, processes=1)
    assert not failures, failures[:5]
    assert outcomes["refused"] > 500 and outcomes["runs"] > 50
    assert outcomes["KB grown, most"] < 200_000  # what libraries keep of their first use
