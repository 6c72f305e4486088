"""Commands that repeat runs, from their settings, so that they stay true when a default changes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from qcascade.studies.cascade.encoder import Size
from qcascade.studies.cascade.groups import Setting, unusual
from qcascade.studies.cascade.lengths import LengthRun
from qcascade.studies.cascade.noise import NoisyRun
from qcascade.studies.cascade.settings import Kernels, Run, options_of
from qcascade.studies.records import Record
from qcascade.studies.training import Protocol

_SIZE = ("features", "heads", "hidden", "layers", "length")
_PROTOCOL = ("epochs", "batch", "rate", "warmup", "clip", "decay")
_RUN = ("dropout", "word_dropout", "executor", "shots", "device", "folds")
_STUDY = "qcascade study cascade"


def commands(settings: Iterable[Setting]) -> list[str]:
    """One for all runs that differ in kind and seed alone; options are said where they are not as by default."""
    return [" ".join((_STUDY, *words)) for setting in settings for words in _of(setting)]


def length_commands(records: Iterable[Record]) -> list[str]:
    """Of part lengths, one for all lengths of a setting; no text of --data is read."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for record in records:
        own = record.settings
        words = _words(
            *unusual(own["size"], _SIZE[:-1], Size), *_of_kernels(own), *unusual(own, ("device", "threads"), LengthRun),
            ("step_batch", own["batch"]), ("rounds", own["rounds"]),
        )  # fmt: skip
        memory = [] if own["memory"] else ["--no-step-memory"]
        groups.setdefault((*words, *memory), []).append(own["size"]["length"])
    return [
        " ".join(
            (_STUDY, "--data DIR --part lengths", *words, *_words(*(("step_length", n) for n in sorted(set(lengths)))))
        )
        for words, lengths in groups.items()
    ]


def noise_commands(records: Iterable[Record]) -> list[str]:
    """Of part noise, which predicts for the protocol's encoder and simulates a small one: pairs of records of one target."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for record in records:
        own = record.settings
        predicted, simulated = found.setdefault(own["target"], ([], []))
        if own["part"] == "predicted":
            words = _words(*unusual(own["size"], _SIZE, Size), *_of_kernels(own), *unusual(own, ("batch",), Protocol))
            predicted.append(" ".join(words))
        else:
            epochs = unusual(own["protocol"], ("epochs",), NoisyRun("", "", "").protocol)
            others = [*((f"noise_{name}", value) for name, value in (*unusual(own, ("texts",), NoisyRun), *epochs))]
            simulated.append(" ".join(("--data", shlex.quote(own["data"]), *_words(*others))))
    return [
        " ".join(filter(None, (_STUDY, second or "--data DIR", "--part noise --target", shlex.quote(target), first)))
        for target, (predicted, simulated) in found.items()
        for first, second in zip_longest(predicted, simulated, fillvalue="")
    ]


def _of_kernels(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    own = Kernels.of_one_step(settings["kernels"])
    return unusual(own, own, Kernels)


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
    return _words(*found)


def _words(*options: tuple[str, Any]) -> list[str]:
    return [word for name, value in options for word in (f"--{name.replace('_', '-')}", shlex.quote(str(value)))]


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
