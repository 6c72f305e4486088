"""Commands that repeat runs, from their settings, so that they stay true when a default changes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qcascade.studies.cascade.encoder import Size
from qcascade.studies.cascade.groups import Setting, unusual
from qcascade.studies.cascade.settings import Kernels, Run, options_of
from qcascade.studies.training import Protocol

_SIZE = ("features", "heads", "hidden", "layers", "length")
_PROTOCOL = ("epochs", "batch", "rate", "warmup", "clip", "decay")
_RUN = ("dropout", "word_dropout", "executor", "shots")


def commands(settings: Iterable[Setting]) -> list[str]:
    """One for all runs that differ in kind and seed alone; options are said where they are not as by default."""
    return [" ".join(("qcascade study cascade", *words)) for setting in settings for words in _of(setting)]


def _of(setting: Setting) -> list[list[str]]:
    found: dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]] = {}
    for runs in setting.kinds().values():
        one = next(iter(runs.values())).settings
        found.setdefault((tuple(_options(one)), tuple(sorted(runs))), []).append(one["kind"])
    made = []
    for (options, seeds), kinds in found.items():
        said = [word for kind in kinds for word in ("--kind", shlex.quote(kind))]
        for first, count in _spans(seeds):
            own = ["--seeds", str(count), *(("--first-seed", str(first)) if first else ())]
            made.append(["--data", shlex.quote(setting.data), *options, "--part", "train", *said, *own])
    return made


def _options(run: Mapping[str, Any]) -> list[str]:
    found = (
        *unusual(run["size"], _SIZE, Size),
        *unusual(run["protocol"], _PROTOCOL, Protocol),
        *unusual(run, _RUN, Run),
        *unusual(run["kernels"] or {}, options_of(run["kind"]), Kernels),
    )
    return [word for name, value in found for word in (f"--{name.replace('_', '-')}", str(value))]


def _spans(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """First and number of every run of seeds that follow one another.

    Example:
        >>> _spans([0, 1, 2, 5])
        [(0, 3), (5, 1)]
    """
    found: list[tuple[int, int]] = []
    for seed in seeds:
        if found and sum(found[-1]) == seed:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((seed, 1))
    return found
