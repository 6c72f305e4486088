"""`qcascade demo`: a classifier and its hybrid trained side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    data: Annotated[Path | None, typer.Option(help="folder with train.tsv and test.tsv of text<TAB>label")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training data", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of weights and batches")] = 0,
) -> None:
    """Train a small transformer classifier and its hybrid side by side; digits by default, nothing is downloaded."""
    from qcascade.demo import run_demo

    run_demo(data, epochs=epochs, seed=seed)
