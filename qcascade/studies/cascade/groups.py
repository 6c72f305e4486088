"""Training runs of the cascaded study by *setting*: runs that differ in nothing but kind, kernels, executor and seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from qcascade.studies.cascade.encoder import SIZES, Size
from qcascade.studies.cascade.settings import KINDS, Kernels, Run, options_of
from qcascade.studies.records import Record
from qcascade.studies.training import Protocol

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Setting:
    """Runs of one setting.

    Attributes:
        data: Name of the folder.
        digest: Of its content, where settings with other content have the same name; else "".
        protocol: Without the seed.
    """

    data: str
    digest: str
    size: Mapping[str, Any]
    protocol: Mapping[str, Any]
    dropout: float
    word_dropout: float
    folds: int
    runs: tuple[Record, ...]

    @property
    def name(self) -> str:
        """The data, and what differs from the source's protocol."""
        own = [f"n ≤ {self.size['length']}", f"d = {self.size['features']}"]
        own.append(f"{self.size['layers']} layers" + _instead(self.size["layers"], Size().layers))
        own.append(f"{self.protocol['epochs']} epochs" + _instead(self.protocol["epochs"], Protocol().epochs))
        own.append(f"rate {self.protocol['rate']:g}")
        others = [f"{name} {value:g}" for name, value in self._others()]
        return f"{' '.join((self.data, self.digest)).strip()} ({', '.join((*own, *others))})"

    @property
    def file_name(self) -> str:
        """Short, for files."""
        size, epochs = self.size, self.protocol["epochs"]
        data = "-".join(filter(None, (self.data, self.digest)))
        own = f"{data}-d{size['features']}-layers{size['layers']}-n{size['length']}-epochs{epochs}"
        rate = self.protocol["rate"]
        others = [("rate", rate)] if rate != Protocol().rate else []
        return "-".join((own, *(f"{name.replace(' ', '_')}{value:g}" for name, value in others + self._others())))

    def _others(self) -> list[tuple[str, float]]:
        """What else is not as it is by default."""
        own = {"dropout": self.dropout, "word_dropout": self.word_dropout, "folds": self.folds}
        found = (
            *unusual_sizes(self.size),
            *unusual(self.protocol, ("batch", "warmup", "clip", "decay"), Protocol),
            *unusual(own, own, Run),
        )
        return [(name.replace("_", " "), value) for name, value in found]

    def kinds(self) -> dict[str, dict[int, Record]]:
        """Runs by kind, with what of its kernels and executor is not as it is by default, and seed."""
        order = {name: number for number, name in enumerate(KINDS)}
        found: dict[str, dict[int, Record]] = {}
        for run in sorted(
            self.runs, key=lambda r: (order[r.settings["kind"]], _name(r), r.settings["protocol"]["seed"])
        ):
            found.setdefault(_name(run), {})[run.settings["protocol"]["seed"]] = run
        return found


def settings_of(runs: Sequence[Record]) -> list[Setting]:
    """Runs by setting, in the order in which each began."""
    groups: dict[str, list[Record]] = {}
    for run in runs:
        own = {k: v for k, v in run.settings.items() if k not in ("kind", "kernels", "executor", "shots", "device")}
        own.setdefault("folds", 0)  # younger than some records
        own["protocol"] = {k: v for k, v in own["protocol"].items() if k != "seed"}
        groups.setdefault(json.dumps(own, sort_keys=True), []).append(run)
    contents: dict[str, set[str]] = {}
    for run in runs:
        contents.setdefault(run.settings["data"], set()).add(run.settings["digest"])
    return [
        Setting(
            (own := json.loads(key))["data"],
            own["digest"] if len(contents[own["data"]]) > 1 else "",
            own["size"],
            own["protocol"],
            own["dropout"],
            own["word_dropout"],
            own["folds"],
            tuple(group),
        )
        for key, group in groups.items()
    ]


def unusual(
    values: Mapping[str, Any], names: Iterable[str], usual: DataclassInstance | type[DataclassInstance]
) -> list[tuple[str, Any]]:
    """Names and values of those options of a record that are not as in `usual`, or by its defaults; one younger than the record is.

    Example:
        >>> unusual({"layers": 2, "length": 64}, ("layers", "length", "heads"), Size)
        [('layers', 2)]
    """
    held = {field.name: field.default for field in fields(usual)} if isinstance(usual, type) else asdict(usual)
    return [(name, values[name]) for name in names if name in values and values[name] != held[name]]


def unusual_sizes(size: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Heads and hidden units, where they are not those of the usual encoder of this width."""
    usual = next((one for one in SIZES.values() if one.features == size["features"]), Size())
    return unusual(size, ("heads", "hidden"), usual)


def _name(run: Record) -> str:
    own, kernels = run.settings, run.settings["kernels"] or {}
    found = unusual(own, ("executor", "shots", "device"), Run) + unusual(kernels, options_of(own["kind"]), Kernels)
    return ", ".join([own["kind"], *(f"{name.replace('_', ' ')} {value}" for name, value in sorted(found))])


def _instead(value: int, source: int) -> str:
    return "" if value == source else f" instead of {source}"
