"""Tables of steps and devices: time and memory by length, what a plan predicts for a device, what its noise does."""

from __future__ import annotations

import json
from collections.abc import Sequence

from qcascade.report.units import bytes_text, seconds_text
from qcascade.studies.cascade.groups import unusual, unusual_sizes
from qcascade.studies.cascade.lengths import LengthRun
from qcascade.studies.cascade.settings import Kernels
from qcascade.studies.records import Record
from qcascade.studies.tables import StudyTable

CLASSICAL_SECONDS, HYBRID_SECONDS = 1.24, 0.98  # the source's seconds of a step


def lengths_table(records: Sequence[Record]) -> StudyTable:
    """Time and memory of a step by length."""
    rows = [
        (
            "the source",
            "?",
            "?",
            f"{CLASSICAL_SECONDS} s",
            f"{HYBRID_SECONDS} s",
            f"{HYBRID_SECONDS / CLASSICAL_SECONDS:.2f}",
            *"–––––",
        )
    ]
    for record in by_length(records):
        size, got = record.settings["size"], record.measured
        peak = got["peak_bytes"]
        rows.append(
            (
                ", ".join((str(size["features"]), str(size["layers"]), *what_differs(record))),
                str(size["length"]),
                str(record.settings["batch"]),
                seconds_text(got["seconds"]["classical"]),
                seconds_text(got["seconds"]["hybrid"]),
                f"{got['ratio']:.2f}",
                bytes_text(peak.get("classical")),
                bytes_text(peak.get("hybrid")),
                f"{peak['hybrid'] / peak['classical']:.2f}" if peak else "–",
                str(record.settings["rounds"]),
                str(record.machine["load"]),
            )
        )
    return StudyTable(
        "A training step by length, and the source's",
        (
            "d, layers",
            "n",
            "batch",
            "classical",
            "hybrid",
            "ratio",
            "peak memory, classical",
            "hybrid",
            "ratio",
            "rounds",
            "load",
        ),
        tuple(rows),
        (
            "Both take turns in one process; seconds are medians, the ratio is the median of the rounds'. Memory is the peak of a process "
            "of its own, libraries included; the hybrid keeps what was replaced, for distilling, until it is saved.",
        ),
    )


def predicted_table(records: Sequence[Record]) -> StudyTable:
    """What a training step would take on devices."""
    rows = []
    for record in records:
        for kernel, own in record.measured["kernels"].items():
            rows.append(
                (
                    ", ".join((record.settings["target"], *what_differs(record))),
                    kernel,
                    f"{record.settings['batch']} × {record.settings['size']['length']}",
                    f"{own['qubits']}",
                    f"{_known(own['two_qubit_gates'])} + {_known(own['loading_two_qubit_gates'])}",
                    "–" if own["fidelity"] is None else f"{own['fidelity']:.3f}",
                    f"{_known(own['circuits_forward'])} + {_known(own['circuits_backward'])}",
                    _long(own["seconds_target_training"]),
                    f"{bytes_text(own['bytes_to_device_training'])}, {bytes_text(own['bytes_from_device_training'])}",
                    _price(own["price_training"], own["price_currency"]),
                )
            )
        step = record.measured["step"]
        rows.append(
            (
                ", ".join((record.settings["target"], *what_differs(record))),
                "all regions together",
                f"{record.settings['batch']} × {record.settings['size']['length']}",
                *"–––",
                f"{_known(step['circuits_forward'])} + {_known(step['circuits_backward'])}",
                _long(step["seconds_target_training"]),
                f"{bytes_text(step['bytes_to_device_training'])}, {bytes_text(step['bytes_from_device_training'])}",
                _price(step["price_training"], record.measured["price_currency"]),
            )
        )
    return StudyTable(
        "Predicted for a training step on devices, each region of a kind and all together",
        (
            "target", "kernel", "batch × n", "qubits", "two-qubit gates + loading", "fidelity", "circuits, forward + backward", "time",
            "bytes out, back", "price",
        ),
        tuple(rows),
        ("From the plan for the target; queueing is left out. – and ?: not known.",),
    )  # fmt: skip


def simulated_tables(records: Sequence[Record]) -> list[StudyTable]:
    """What noise does to a small hybrid; one table for runs that differ in target alone."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        own = {name: value for name, value in record.settings.items() if name != "target"}
        groups.setdefault(json.dumps(own, sort_keys=True), []).append(record)
    return [_simulated_table(group) for group in groups.values()]


def _simulated_table(records: Sequence[Record]) -> StudyTable:
    rows = []
    for record in records:
        got = record.measured
        for name in ("exact", "shots", "noisy"):
            own = got[name]
            moved = ", ".join(f"{region} {value:.3f}" for region, value in own.get("kernels", {}).items())
            rows.append(
                (
                    record.settings["target"] if name == "noisy" else "–",
                    name if name == "exact" else f"{name}, {record.settings['shots']}",
                    f"{own['accuracy']:.1f}",
                    f"{own['agreement']:.1f}",
                    f"{own['moved']:.3f}",
                    moved or "–",
                    seconds_text(own["quantum_seconds"]) if "quantum_seconds" in own else "–",
                    seconds_text(own["waiting_seconds"]) if "waiting_seconds" in own else "–",
                    str(own.get("circuits", "–")),
                    f"{bytes_text(own['bytes_out'])}, {bytes_text(own['bytes_back'])}" if "bytes_out" in own else "–",
                )
            )
    fidelity = "; ".join(
        f"{record.settings['target']}: "
        + ", ".join(f"{name} {_known(value)}" for name, value in record.measured["predicted_fidelity"].items())
        for record in records
    )
    first = records[0].settings
    return StudyTable(
        f"A small hybrid under noise ({first['texts']} texts of {first['data']}, n ≤ {first['size']['length']}, "
        f"d = {first['size']['features']}, {first['size']['layers']} layer, {first['protocol']['epochs']} epochs)",
        (
            "target", "executor, shots", "accuracy, %", "as the exact one says, %", "probabilities moved by", "kernels' outputs moved by",
            "quantum execution", "waiting", "circuits", "bytes out, back",
        ),
        tuple(rows),
        (
            "Trained exactly, read in three ways. Outputs move by a share of their own spread (root mean squares). "
            f"Predicted fidelity: {fidelity}.",
        ),
    )  # fmt: skip


def _known(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def what_differs(record: Record) -> list[str]:
    """What a record's encoder, kernels and process have other than by default, but for width, layers and length."""
    own, kernels = record.settings, Kernels.of_one_step(record.settings["kernels"])
    found = (
        *unusual_sizes(own["size"]), *unusual(kernels, kernels, Kernels), *unusual(own, ("device", "threads"), LengthRun)
    )  # fmt: skip
    return [f"{name.replace('_', ' ')} {value}" for name, value in found]


def by_length(records: Sequence[Record]) -> list[Record]:
    """By width, layers and length."""
    return sorted(
        records,
        key=lambda r: (r.settings["size"]["features"], r.settings["size"]["layers"], r.settings["size"]["length"]),
    )


def _price(amount: float | None, currency: str | None) -> str:
    return "–" if amount is None else f"{amount:,.0f} {currency}"


def _long(seconds: float | None) -> str:
    """With hours and days, beyond which seconds say little."""
    if seconds is None or seconds < 3600:
        return seconds_text(seconds)
    return f"{seconds / 86400:.3g} days" if seconds >= 86400 else f"{seconds / 3600:.3g} h"
