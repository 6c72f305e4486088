"""Between kernels and executors: each circuit is sent once, remembered, and paid for within limits."""

from __future__ import annotations

from qcascade.dispatch.choice import Switch
from qcascade.dispatch.dispatcher import DispatchedExecutor
from qcascade.dispatch.journal import Journal, Record, default_path
from qcascade.dispatch.policy import Policy
from qcascade.dispatch.rotation import take_turns, waiting
from qcascade.dispatch.telemetry import Step, Telemetry

__all__ = [
    "DispatchedExecutor",
    "Journal",
    "Policy",
    "Record",
    "Step",
    "Switch",
    "Telemetry",
    "default_path",
    "take_turns",
    "waiting",
]
