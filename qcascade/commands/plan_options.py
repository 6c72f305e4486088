"""The options of a plan, shared by the commands that compile a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
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
    target: TargetName = "ideal",
    objective: Objective = "offload",
    kernel: KernelNames = None,
    include: Include = None,
    exclude: Exclude = None,
    max_qubits: MaxQubits = None,
    max_two_qubit_depth: MaxDepth = None,
    min_fidelity: MinFidelity = None,
    min_flops: MinFlops = 0,
    seed: Seed = 0,
    mitigation: Mitigations = None,
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


def with_plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with a plan's options in place of its parameter `given`, which gets what `plan_options` makes of them.

    Args:
        command: Its annotations are typer's.
    """
    own = inspect.signature(command, eval_str=True).parameters
    more = inspect.signature(plan_options, eval_str=True).parameters

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        command(given=plan_options(**{name: arguments.pop(name) for name in more}), **arguments)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        parameters += [*more.values()] if name == "given" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def _mitigation(name: str) -> Mitigation:
    if name not in ("readout", "extrapolation"):
        raise PlanError(f"--mitigation {name} is unknown; choose readout or extrapolation.")
    return ReadoutInversion() if name == "readout" else ZeroNoiseExtrapolation()
