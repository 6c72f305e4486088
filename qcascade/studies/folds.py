"""Cross-validation: all texts of a folder tested once, so that a small test set does not decide what a model is worth."""

from __future__ import annotations

import random

from qcascade.errors import ExecutionError
from qcascade.studies.texts import DEV_SHARE, Split, Texts


def split_by_fold(texts: Texts, folds: int, seed: int) -> Texts:
    """The texts of train, dev and test together, split anew.

    Test is one of `folds` equal parts, dev an eighth of the rest, train what is left. Labels are spread evenly over the parts, and a
    text that stands several times is in one part alone. Seeds 0 to `folds` − 1 test every text once, those after them again in other
    parts.

    Args:
        texts: As the folder splits them.
        folds: Parts, at least 2.
        seed: Which part is test (the remainder by `folds`), and of which draw (the quotient).

    Raises:
        ExecutionError: There are fewer than 2 folds, or too few texts: a part would be empty, or train without a label.

    Example:
        >>> words = Split(("a", "b", "c", "d", "e", "f", "g", "h"), ("0", "1") * 4)
        >>> found = split_by_fold(Texts("letters", words.at(range(6)), Split((), ()), words.at((6, 7)), ("0", "1")), 4, 0)
        >>> len(found.train), len(found.dev), len(found.test), sorted(found.test.labels)
        (5, 1, 2, ['0', '1'])
    """
    if folds < 2:
        raise ExecutionError(f"folds={folds}: cross-validation needs at least 2 (0 keeps the folder's own split).")
    parts = (texts.train, texts.dev, texts.test)
    everything = Split(
        tuple(text for part in parts for text in part.texts), tuple(label for part in parts for label in part.labels)
    )
    places: dict[str, list[int]] = {}
    for place, text in enumerate(everything.texts):
        places.setdefault(text, []).append(place)
    order = list(places.values())
    random.Random(seed // folds).shuffle(order)
    order.sort(key=lambda own: everything.labels[own[0]])  # stable: labels one after another, each in the order drawn
    number = seed % folds
    rest = [own for rank, own in enumerate(order) if rank % folds != number]
    every = round(1 / DEV_SHARE)
    test, dev, train = (
        everything.at(sorted(place for own in chosen for place in own))
        for chosen in (
            order[number::folds],
            rest[every // 2 :: every],
            [own for rank, own in enumerate(rest) if rank % every != every // 2],
        )
    )
    if len(order) < folds or not {*dev.labels, *test.labels} <= {*train.labels}:
        raise ExecutionError(
            f"{texts.name} has too few texts for {folds} folds: one would be empty, or train without a label; choose fewer folds."
        )
    return Texts(texts.name, train, dev, test, texts.classes)
