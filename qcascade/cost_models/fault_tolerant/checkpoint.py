"""What a trajectory keeps on disk, so that a run that is killed goes on: weights where training stands, and everything measured so far.

Two files: FILE holds weights, the optimizer's state and the step they belong to, written before a moment is measured (torch.save, read
back with weights_only); FILE.json holds the moments measured and the probes of the moment in progress, written after each. Both
carry the settings and are refused under others. Files are written beside and renamed, so that one is never half there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qcascade.cost_models.fault_tolerant.lanczos import Probe
from qcascade.errors import PlanError

Plain = dict[str, Any]


@dataclass(slots=True)
class Checkpoint:
    """`moments` as plain JSON values; `probes` of the moment in progress. Without a file nothing is written."""

    file: Path | None
    settings: str
    moments: list[Plain] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)

    @classmethod
    def at(cls, file: Path | None, settings: Plain) -> Checkpoint:
        """What is there already.

        Raises:
            PlanError: It was written with other settings.
        """
        made = cls(file, json.dumps(settings))
        if made._measured is not None and made._measured.exists():
            stored = json.loads(made._measured.read_text(encoding="utf-8"))
            made._check(stored["settings"])
            made.moments = stored["moments"]
            made.probes = [(np.array(v), np.array(w)) for v, w in stored["probes"]]
        return made

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int | None:
        """Load weights and the optimizer's state; the step they are of, or None where there is nothing.

        Raises:
            PlanError: They are of another model, or of other settings.
        """
        if self.file is None or not self.file.exists():
            return None
        stored = torch.load(self.file, weights_only=True)
        self._check(stored["settings"])
        try:
            model.load_state_dict(stored["weights"])
        except RuntimeError as error:
            raise PlanError(f"{self.file} is of another model: {error}") from error
        optimizer.load_state_dict(stored["optimizer"])
        return int(stored["step"])

    def keep_weights(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Before a moment is measured."""
        if self.file is None:
            return
        partial = self.file.with_name(self.file.name + ".partial")
        state = {"settings": self.settings, "step": step}
        torch.save({**state, "weights": model.state_dict(), "optimizer": optimizer.state_dict()}, partial)
        partial.replace(self.file)

    def keep_probe(self, probe: Probe) -> None:
        """After a probe."""
        self.probes.append(probe)
        self._write()

    def keep_moment(self, moment: Plain) -> None:
        """After a moment: its probes are in it."""
        self.moments.append(moment)
        self.probes = []
        self._write()

    @property
    def _measured(self) -> Path | None:
        return None if self.file is None else self.file.with_name(self.file.name + ".json")

    def _write(self) -> None:
        if self._measured is None:
            return
        probes = [[v.tolist(), w.tolist()] for v, w in self.probes]
        text = json.dumps({"settings": self.settings, "moments": self.moments, "probes": probes})
        partial = self._measured.with_name(self._measured.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self._measured)

    def _check(self, settings: str) -> None:
        if settings != self.settings:
            raise PlanError(f"{self.file} was written with other settings: {settings}; remove it, or give these.")
