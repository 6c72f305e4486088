"""The options of a plan, shared by the commands that compile a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qcascade.errors import PlanError
from qcascade.executors.mitigation import Mitigation, ReadoutInversion, ZeroNoiseExtrapolation
from qcascade.plan import Limits

Model = Annotated[
    str,
    typer.Argument(help="package.module:name or file.py:name (a module or a callable that makes one), or file.pt2"),
]
TargetName = Annotated[str, typer.Option(help="device, of `qcascade targets`, or a .json file")]
Objective = Annotated[str, typer.Option(help="offload, train_time or hardware_time")]
KernelNames = Annotated[list[str] | None, typer.Option(help="kernel to consider; may be repeated")]
Include = Annotated[list[str] | None, typer.Option(help="glob over region names to offload; may be repeated")]
Exclude = Annotated[list[str] | None, typer.Option(help="glob over region names to keep; may be repeated")]
MaxQubits = Annotated[int | None, typer.Option(help="widest circuit accepted")]
MaxDepth = Annotated[int | None, typer.Option(help="deepest circuit accepted, loading included")]
MinFidelity = Annotated[float | None, typer.Option(help="least predicted fidelity accepted")]
MinFlops = Annotated[int, typer.Option(help="regions of fewer FLOPs are kept")]
Seed = Annotated[int, typer.Option(help="of everything random")]
Mitigations = Annotated[
    list[str] | None, typer.Option(help="to count in the costs: readout or extrapolation; may be repeated")
]


def plan_options(
    *,
    target: str,
    objective: str,
    kernel: list[str] | None,
    include: list[str] | None,
    exclude: list[str] | None,
    max_qubits: int | None,
    max_two_qubit_depth: int | None,
    min_fidelity: float | None,
    min_flops: int,
    seed: int,
    mitigation: list[str] | None,
) -> dict[str, Any]:
    """The options as keyword arguments of `qcascade.compile` and `qcascade.plan`.

    Raises:
        PlanError: A mitigation is unknown.
    """
    return {
        "target": target,
        "objective": objective,
        "limits": Limits(max_qubits, max_two_qubit_depth, min_fidelity, min_flops),
        "kernels": kernel,
        "include": include,
        "exclude": exclude,
        "seed": seed,
        "mitigation": [_mitigation(name) for name in mitigation or []],
    }


def _mitigation(name: str) -> Mitigation:
    if name not in ("readout", "extrapolation"):
        raise PlanError(f"--mitigation {name} is unknown; choose readout or extrapolation.")
    return ReadoutInversion() if name == "readout" else ZeroNoiseExtrapolation()
