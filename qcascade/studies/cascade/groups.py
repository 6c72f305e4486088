"""Training runs of the cascaded study by *setting*: runs that differ in nothing but kind, kernels, executor and seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from qcascade.studies.cascade.encoder import Size
from qcascade.studies.cascade.settings import KINDS, Kernels, Run, options_of
from qcascade.studies.records import Record
from qcascade.studies.training import Protocol

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Setting:
    """Runs of one setting."""

    data: str
    size: Mapping[str, Any]
    protocol: Mapping[str, Any]  # without the seed
    dropout: float
    word_dropout: float
    runs: tuple[Record, ...]

    @property
    def name(self) -> str:
        """The data, and what differs from the source's protocol."""
        own = [f"n ≤ {self.size['length']}", f"d = {self.size['features']}"]
        own.append(f"{self.size['layers']} layers" + _instead(self.size["layers"], Size().layers))
        own.append(f"{self.protocol['epochs']} epochs" + _instead(self.protocol["epochs"], Protocol().epochs))
        own.append(f"rate {self.protocol['rate']:g}")
        return f"{self.data} ({', '.join((*own, *(f'{name} {value:g}' for name, value in self._others())))})"

    @property
    def file_name(self) -> str:
        """Short, for files."""
        size, epochs = self.size, self.protocol["epochs"]
        own = f"{self.data}-d{size['features']}-layers{size['layers']}-n{size['length']}-epochs{epochs}"
        rate = self.protocol["rate"]
        others = [("rate", rate)] if rate != Protocol().rate else []
        return "-".join((own, *(f"{name.replace(' ', '_')}{value:g}" for name, value in others + self._others())))

    def _others(self) -> list[tuple[str, float]]:
        """What else is not as it is by default."""
        drops = {"dropout": self.dropout, "word_dropout": self.word_dropout}
        found = unusual(self.protocol, ("batch", "warmup", "clip", "decay"), Protocol) + unusual(drops, drops, Run)
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
        own = {k: v for k, v in run.settings.items() if k not in ("kind", "kernels", "executor", "shots")}
        own["protocol"] = {k: v for k, v in own["protocol"].items() if k != "seed"}
        groups.setdefault(json.dumps(own, sort_keys=True), []).append(run)
    return [
        Setting(
            (own := json.loads(key))["data"],
            own["size"],
            own["protocol"],
            own["dropout"],
            own["word_dropout"],
            tuple(group),
        )
        for key, group in groups.items()
    ]


def unusual(values: Mapping[str, Any], names: Iterable[str], kind: type[DataclassInstance]) -> list[tuple[str, Any]]:
    """Names and values of those options of a record that are not as by default, as one younger than the record is.

    Example:
        >>> unusual({"layers": 2, "length": 64}, ("layers", "length", "heads"), Size)
        [('layers', 2)]
    """
    usual = {field.name: field.default for field in fields(kind)}
    return [(name, values[name]) for name in names if name in values and values[name] != usual[name]]


def _name(run: Record) -> str:
    own, kernels = run.settings, run.settings["kernels"] or {}
    found = unusual(own, ("executor", "shots"), Run) + unusual(kernels, options_of(own["kind"]), Kernels)
    return ", ".join([own["kind"], *(f"{name.replace('_', ' ')} {value}" for name, value in sorted(found))])


def _instead(value: int, source: int) -> str:
    return "" if value == source else f" instead of {source}"
