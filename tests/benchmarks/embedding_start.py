"""How far apart should words start? The cascaded study's encoder with the embedding kernel, on training texts held out.

    python tests/benchmarks/embedding_start.py --data DIR [--folds 4] [--spreads 0.5 0.1] [--length 512] [--layers 1] [--epochs 5]
                                               [--rate 0.001] [--workers 4] [--out embedding_start.jsonl]

DIR holds train.tsv and test.tsv of ``text<TAB>label``; only train.tsv is read, so that settings can be chosen by what comes out.
In every fold a quarter of the texts (one of `--folds` of the four, drawn by a fixed seed) is held out and the rest trained on: by
the classical encoder, and by the same with its token embedding replaced by a circuit whose starting angles are `--spreads` apart
from word to word. All else is as in `qcascade study cascade`. One line a run: accuracy on the held-out quarter after every epoch
("dev") and the last ("test"), and the loss. What is in the file is not done again.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from qcascade.studies.cascade.encoder import Size
from qcascade.studies.cascade.run import train_run
from qcascade.studies.cascade.settings import Kernels, Run
from qcascade.studies.records import Record, Records
from qcascade.studies.runs import run_all
from qcascade.studies.texts import digest_of
from qcascade.studies.training import Protocol

QUARTERS, SEED = 4, 7
EMBEDDING = "without attention kernel"


@dataclass(frozen=True)
class Held:
    """A run, and the quarter that it was tested on."""

    fold: int
    run: Run


def split(data: Path, fold: int, folder: Path) -> None:
    """Training texts without a quarter, and that quarter as dev and test."""
    lines = (data / "train.tsv").read_text(encoding="utf-8").splitlines()
    order = list(range(len(lines)))
    random.Random(SEED).shuffle(order)
    size = len(lines) // QUARTERS
    held = set(order[fold * size : (fold + 1) * size])
    parts = {
        "train": [line for number, line in enumerate(lines) if number not in held],
        "dev": [lines[number] for number in sorted(held)],
    }
    folder.mkdir(exist_ok=True)
    for name, own in (*parts.items(), ("test", parts["dev"])):
        (folder / f"{name}.tsv").write_text("".join(f"{line}\n" for line in own), encoding="utf-8")


def measure(held: Held, folder: Path) -> dict[str, Any]:
    """What the run came to."""
    return train_run(held.run, folder / str(held.fold), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=QUARTERS, choices=range(1, QUARTERS + 1))
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.5, 0.1])
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("embedding_start.jsonl"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        wanted = []
        for fold in range(asked.folds):
            split(asked.data, fold, folder / str(fold))
            for spread in (None, *asked.spreads):
                run = Run(
                    data=asked.data.resolve().name,
                    digest=digest_of(folder / str(fold)),
                    kind="classical" if spread is None else EMBEDDING,
                    size=Size(length=asked.length, layers=asked.layers),
                    protocol=Protocol(epochs=asked.epochs, rate=asked.rate, seed=fold),
                    kernels=None if spread is None else Kernels(spread=spread),
                )
                wanted.append(Held(fold, run))
        done = run_all(
            wanted, partial(measure, folder=folder), Records(asked.out), workers=asked.workers, threads=1,
            said=lambda record: print(f"fold {record.settings['fold']}, {_said([record])}", flush=True),
        )  # fmt: skip
    for start in dict.fromkeys(map(_start, done)):
        print(f"mean: {_said([record for record in done if _start(record) == start])}")


def _start(record: Record) -> str:
    kernels = record.settings["run"]["kernels"]
    return "table" if kernels is None else f"circuit, spread {kernels['spread']:g}"


def _said(records: Sequence[Record]) -> str:
    held, train = (fmean(record.measured[name] for record in records) for name in ("test", "train"))
    return f"{_start(records[0])}: {held:.2f} % held out, {train:.2f} % trained on"


if __name__ == "__main__":
    main()
