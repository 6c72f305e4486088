"""The zoo's representative entries (about a seventh; `python tests/zoo` examines all): every check of `examine` holds."""

from __future__ import annotations

import pytest
import torch

from .entries import Entry
from .examine import attentions_run, examine
from .table import ENTRIES

CHOSEN = [e for e in ENTRIES if e.representative]


@pytest.mark.parametrize("entry", CHOSEN, ids=lambda e: e.name)
def test_entry(entry: Entry) -> None:
    result = examine(entry)
    assert not result.failures
    assert result.rung == (entry.rung or "export")


def test_there_are_enough_and_names_are_unique() -> None:
    names = [e.name for e in ENTRIES]
    assert len(names) == len(set(names))
    assert len(names) >= 60
    assert len({e.family for e in CHOSEN}) == len({e.family for e in ENTRIES})


@pytest.mark.parametrize("entry", [e for e in CHOSEN if e.attentions], ids=lambda e: e.name)
def test_expected_attentions_are_what_a_run_shows(entry: Entry) -> None:
    """Softmaxes that the original really runs are no fewer than the attentions written down for it."""
    torch.manual_seed(0)
    assert attentions_run(entry.build(), entry.inputs(2, entry.lengths[0])) >= entry.attentions + entry.crossed
