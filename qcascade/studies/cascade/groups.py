"""Training runs of the cascaded study by *setting*: runs that differ in nothing but kind, kernels, executor and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qcascade.studies.cascade.encoder import Size
from qcascade.studies.cascade.settings import KINDS
from qcascade.studies.records import Record
from qcascade.studies.training import Protocol


@dataclass(frozen=True, slots=True)
class Setting:
    """Runs of one setting."""

    data: str
    size: Mapping[str, Any]
    protocol: Mapping[str, Any]  # without the seed
    runs: tuple[Record, ...]

    @property
    def name(self) -> str:
        """The data, and what differs from the source's protocol."""
        own = [f"n ≤ {self.size['length']}", f"d = {self.size['features']}"]
        own.append(f"{self.size['layers']} layers" + _instead(self.size["layers"], Size().layers))
        own.append(f"{self.protocol['epochs']} epochs" + _instead(self.protocol["epochs"], Protocol().epochs))
        return f"{self.data} ({', '.join(own)}, rate {self.protocol['rate']:g})"

    @property
    def file_name(self) -> str:
        """Short, for files."""
        size, epochs = self.size, self.protocol["epochs"]
        return f"{self.data}-d{size['features']}-layers{size['layers']}-n{size['length']}-epochs{epochs}"

    def kinds(self) -> dict[str, dict[int, Record]]:
        """Runs by kind, with the kernels' settings where there are several, and seed."""
        order = {name: number for number, name in enumerate(KINDS)}
        found: dict[str, dict[int, Record]] = {}
        named = {_variant(run): run.settings["kind"] for run in self.runs}
        alone = {kind: sum(k == kind for k in named.values()) == 1 for kind in KINDS}
        for run in sorted(
            self.runs, key=lambda r: (order[r.settings["kind"]], _variant(r), r.settings["protocol"]["seed"])
        ):
            kind = run.settings["kind"]
            name = kind if alone[kind] else f"{kind}, {_kernels(run)}"
            found.setdefault(name, {})[run.settings["protocol"]["seed"]] = run
        return found


def settings_of(runs: Sequence[Record]) -> list[Setting]:
    """Runs by setting, in the order in which each began."""
    groups: dict[str, list[Record]] = {}
    for run in runs:
        own = {k: v for k, v in run.settings.items() if k not in ("kind", "kernels", "executor", "shots")}
        own["protocol"] = {k: v for k, v in own["protocol"].items() if k != "seed"}
        groups.setdefault(json.dumps(own, sort_keys=True), []).append(run)
    return [
        Setting((own := json.loads(key))["data"], own["size"], own["protocol"], tuple(group))
        for key, group in groups.items()
    ]


def _variant(run: Record) -> str:
    return json.dumps([run.settings[name] for name in ("kind", "kernels", "executor", "shots")], sort_keys=True)


def _kernels(run: Record) -> str:
    own = run.settings["kernels"] or {}
    said = [f"{name} {value:g}" for name, value in sorted(own.items())]
    return ", ".join([*said, run.settings["executor"]])


def _instead(value: int, source: int) -> str:
    return "" if value == source else f" instead of {source}"
