"""One classical run: logistic regression, SVM, a small MLP, or random Fourier features, on standardised embeddings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qcascade.errors import ExecutionError
from qcascade.studies.head.embeddings import Embedded, file_of, load
from qcascade.studies.head.inputs import principal
from qcascade.studies.head.quantum import diverged, percent_right, seconds_of, train_on
from qcascade.studies.head.runs import CLASSICAL, ClassicalRun
from qcascade.studies.training import DivergedError, Protocol

Pairs = tuple[Tensor, Tensor]


def measure(run: ClassicalRun, cache: Path) -> Mapping[str, Any]:
    """Fit and score; what a record of the study holds. Figures of test are written down and choose nothing.

    Raises:
        ExecutionError: The method is unknown.
        QCascadeError: scikit-learn is not installed.
    """
    if run.method not in CLASSICAL:
        raise ExecutionError(f"method={run.method!r} is unknown; choose one of {', '.join(CLASSICAL)}.")
    data = load(file_of(cache, run.embeddings, run.digest))
    start = time.perf_counter()
    found = _mlp(run, data) if run.method == "mlp" else _sklearn(run, data)
    return {**found, "seconds": seconds_of(start)}


def standardised(run: ClassicalRun, data: Embedded) -> tuple[Pairs, Pairs, Pairs]:
    """Train (the seed's part), dev and test by the training part's means and deviations."""
    rows, labels = data.part(run.seed, run.share)
    centre, scale = rows.mean(0), rows.std(0).clamp_min(1e-6)
    train, dev, test = (((x - centre) / scale, y) for x, y in ((rows, labels), data.dev, data.test))
    return train, dev, test


def hidden_units(inputs: int, classes: int, parameters: int) -> int:
    """As many as keep inputs → hidden → classes within so many parameters; at least one.

    Example:
        >>> hidden_units(32, 2, 343)
        9
    """
    return max(1, (parameters - classes) // (inputs + 1 + classes))


def _mlp(run: ClassicalRun, data: Embedded) -> dict[str, Any]:
    train, dev, test = standardised(run, data)
    if run.width:
        components = principal(train[0], run.width)
        train, dev, test = ((components(x), y) for x, y in (train, dev, test))
    inputs = train[0].shape[1]
    torch.manual_seed(run.seed)
    hidden = hidden_units(inputs, data.classes, run.parameters)
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, data.classes))
    parameters = sum(p.numel() for p in model.parameters())
    try:
        train_on(model, train, dev, Protocol(run.epochs, 64, run.strength, decay=0.01, seed=run.seed))
    except DivergedError as error:
        return {"parameters": parameters, **diverged(error)}
    return {
        "parameters": parameters,
        "dev": percent_right(model, *dev),
        "test": percent_right(model, *test),
    }


def _sklearn(run: ClassicalRun, data: Embedded) -> dict[str, Any]:
    try:
        from sklearn.kernel_approximation import RBFSampler
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import SVC
    except ImportError as error:
        from qcascade.errors import QCascadeError

        raise QCascadeError("the classical columns need scikit-learn: pip install 'qcascade[studies]'.") from error
    train, dev, test = standardised(run, data)
    rows, labels = train[0].numpy(), train[1].numpy()
    features = rows.shape[1]
    columns = 1 if data.classes == 2 else data.classes  # of a regression's weights
    if run.method == "svm":
        model = SVC(C=run.strength, gamma="scale").fit(rows, labels)
        parameters = int(
            model.support_vectors_.shape[0] * (columns if data.classes == 2 else data.classes - 1) + columns
        )
    elif run.method == "logistic":
        model = LogisticRegression(C=run.strength, max_iter=2000).fit(rows, labels)
        parameters = columns * (features + 1)
    else:
        count = max(1, run.parameters // columns - 1)
        sampler = RBFSampler(gamma=run.width / 1000 / features, n_components=count, random_state=run.seed)
        model = make_pipeline(sampler, LogisticRegression(C=run.strength, max_iter=2000)).fit(rows, labels)
        parameters = columns * (count + 1)
    return {
        "parameters": parameters,
        "dev": 100 * float(model.score(dev[0].numpy(), dev[1].numpy())),
        "test": 100 * float(model.score(test[0].numpy(), test[1].numpy())),
    }
