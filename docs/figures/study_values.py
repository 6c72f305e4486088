"""Single values of the studies' tables, for pages that name a few: results/STUDY/table.md, by table, row and column."""

from __future__ import annotations

from collections.abc import Iterable

from results import ROOT

Cell = tuple[str, str, str, str]  # study; beginnings of a table's title, a row and a column's head

_SST2 = "Accuracy on sst2 (n ≤ 64, d = 128, 6 layers, 10 epochs, rate 0.0005"  # the source's protocol
_SHORT = "Accuracy on sst2 (n ≤ 64, d = 128, 6 layers, 3 epochs"
_REVIEWS = "Accuracy on long_reviews (n ≤ 512, d = 128, 6 layers, 10 epochs, rate 0.0005"  # the same
_FOLDS = f"{_REVIEWS}, folds 4)"  # every review tested once
_WORDS = ", word dropout 0.15"  # words replaced by the unknown one
_FAST = _REVIEWS.replace("0.0005", "0.001")
_LONG, _DROPPED = f"{_FAST}{_WORDS})", f"{_FAST}, dropout 0.3, word dropout 0.4)"
_APART = "hybrid, spread 0.5"  # words' starting angles further apart
_CELLS: dict[str, Cell] = {
    "study.cascade.sst2.classical": ("cascade", f"{_SST2})", "classical", "test"),
    "study.cascade.sst2.hybrid": ("cascade", f"{_SST2})", "hybrid", "test"),
    "study.cascade.sst2.difference": ("cascade", f"{_SST2})", "hybrid", "− classical"),
    "study.cascade.sst2.apart": ("cascade", f"{_SST2}{_WORDS})", _APART, "− classical"),
    "study.cascade.short.classical": ("cascade", _SHORT, "classical", "test"),
    "study.cascade.short.hybrid": ("cascade", _SHORT, "hybrid", "test"),
    "study.cascade.short.rest": ("cascade", _SHORT, "hybrid, mixer rate 0", "test"),
    "study.cascade.short.difference": ("cascade", _SHORT, "hybrid", "− classical"),
    "study.cascade.short.apart": ("cascade", _SHORT, _APART, "− classical"),
    "study.cascade.long.classical": ("cascade", _LONG, "classical", "test"),
    "study.cascade.long.hybrid": ("cascade", _LONG, "hybrid", "test"),
    "study.cascade.long.difference": ("cascade", _LONG, "hybrid", "− classical"),
    "study.cascade.folds.classical": ("cascade", _FOLDS, "classical", "test"),
    "study.cascade.folds.hybrid": ("cascade", _FOLDS, "hybrid", "test"),
    "study.cascade.folds.difference": ("cascade", _FOLDS, "hybrid", "− classical"),
    "study.cascade.words.sst2.classical": ("cascade", f"{_SST2}{_WORDS})", "classical", "test"),
    "study.cascade.words.sst2.hybrid": ("cascade", f"{_SST2}{_WORDS})", "hybrid", "test"),
    "study.cascade.words.sst2.difference": ("cascade", f"{_SST2}{_WORDS})", "hybrid", "− classical"),
    "study.cascade.words.folds.classical": ("cascade", f"{_REVIEWS}{_WORDS}, folds 4)", "classical", "test"),
    "study.cascade.words.folds.hybrid": ("cascade", f"{_REVIEWS}{_WORDS}, folds 4)", "hybrid", "test"),
    "study.cascade.words.folds.difference": ("cascade", f"{_REVIEWS}{_WORDS}, folds 4)", "hybrid", "− classical"),
    "study.cascade.words.reviews.classical": ("cascade", f"{_REVIEWS}{_WORDS})", "classical", "test"),
    "study.cascade.words.reviews.hybrid": ("cascade", f"{_REVIEWS}{_WORDS})", "hybrid", "test"),
    "study.cascade.words.reviews.difference": ("cascade", f"{_REVIEWS}{_WORDS})", "hybrid", "− classical"),
    "study.cascade.long.attention": ("cascade", _LONG, "without embedding kernel", "− classical"),
    "study.cascade.apart.hybrid": ("cascade", _LONG, _APART, "test"),
    "study.cascade.apart.difference": ("cascade", _LONG, _APART, "− classical"),
    "study.cascade.local.difference": ("cascade", _LONG, "hybrid, local width 3, spread 0.5", "− classical"),
    "study.cascade.dropped.classical": ("cascade", _DROPPED, "classical", "test"),
    "study.cascade.dropped.hybrid": ("cascade", _DROPPED, _APART, "test"),
    "study.cascade.dropped.difference": ("cascade", _DROPPED, _APART, "− classical"),
    "study.cascade.dropped.classical.dev": ("cascade", _DROPPED, "classical", "dev"),
    "study.cascade.dropped.hybrid.dev": ("cascade", _DROPPED, _APART, "dev"),
    "study.head.head": ("head", "Heads on MiniLM as it is", "re-uploading head", "test"),
    "study.head.linear": ("head", "Heads on MiniLM as it is", "logistic regression", "test"),
    "study.adapters.full": ("adapters", "MiniLM on labelled sentences", "full fine-tuning", "test"),
    "study.adapters.lora": ("adapters", "MiniLM on labelled sentences", "LoRA", "test"),
    "study.adapters.amplitude": ("adapters", "MiniLM on labelled sentences", "amplitude adapter", "test"),
    "study.fault-tolerant.classical": ("fault-tolerant", "What quantum training would take", "7m", "classical"),
    "study.fault-tolerant.state": ("fault-tolerant", "What quantum training would take", "7m", "one state"),
}


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    return {name: _value(cell) for name, cell in _CELLS.items()}


def _value(cell: Cell) -> str:
    """A cell's text without its interval.

    Raises:
        KeyError: There is no such table, row or column.
    """
    study, title, row, column = cell
    lines = iter((ROOT / "results" / study / "table.md").read_text(encoding="utf-8").splitlines())
    if not any(line.startswith(f"**{title}") for line in lines):
        raise KeyError(f"results/{study}/table.md: {title}")
    body = [_cells(line) for line in _table(lines)]
    place = next((i for i, head in enumerate(body[0]) if head.startswith(column)), None)
    found = next((cells for cells in body[2:] if cells[0].startswith(row)), None)
    if place is None or found is None:
        raise KeyError(f"results/{study}/table.md, {title}: {row}, {column}")
    return found[place].split(" [")[0]


def _table(lines: Iterable[str]) -> list[str]:
    """The next lines that are a table."""
    rows: list[str] = []
    for line in lines:
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            break
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
