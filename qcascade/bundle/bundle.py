"""A loaded bundle: called like a function of named arrays, whole in onnxruntime or with kernels sent to an executor.

What comes in: the path of a bundle. What goes out: a `Bundle` whose files are verified and whose model is checked. Calls
take numpy arrays or torch tensors by the inputs' names and give outputs by name, tensors where a tensor was given.
Refused: what `reader`, `tensors` and `model` refuse, and calls that do not fit the inputs that the manifest lists.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcascade.bundle.inputs import checked_inputs
from qcascade.bundle.manifest import MODEL, REPORT, KernelEntry, Manifest
from qcascade.bundle.memory import LEAST, available, bounded
from qcascade.bundle.model import read_model
from qcascade.bundle.plan_json import plan_of
from qcascade.bundle.reader import Archive, open_archive
from qcascade.bundle.segments import Stage, cut, stage_model
from qcascade.bundle.session import Arrays, Session, element_type, out_of_memory
from qcascade.bundle.strict_json import read_json
from qcascade.bundle.tensors import WeightsFile
from qcascade.errors import BundleError, CircuitError, ExecutionError, PlanError, TargetError
from qcascade.executors import Executor, make_executor
from qcascade.kernels.base import KERNELS, QuantumKernel
from qcascade.plan import PartitionPlan
from qcascade.targets import Target

if TYPE_CHECKING:
    from onnx import ModelProto

    from qcascade.hybrid import HybridModule

ONNX = "onnxruntime"  # as a choice of `use`


def load(path: str | os.PathLike[str], *, threads: int | None = None, memory: int | None = None) -> Bundle:
    """Load a bundle; every checksum is verified, nothing of it is executed, nothing is written.

    Args:
        path: Of a .qcb file or a bundle's directory.
        threads: Cores onnxruntime may use; all physical ones by default.
        memory: Bytes that onnxruntime, or a kernel in torch, may take beyond what the process has, while the model is loaded and
            in each call; what is available now, but at least 1 GiB, by default. Held on Linux (`qcascade.bundle.memory`).

    Raises:
        BundleError: There is none, it is damaged or not safe to load, or was written by a newer version.
    """
    archive = open_archive(path)
    try:
        return Bundle(archive, threads=threads, memory=memory)
    except BaseException:
        archive.close()
        raise


class Bundle:
    """A hybrid from a file; made by `qcascade.load`.

    Args:
        archive: Opened and verified.
        threads: Cores onnxruntime may use; all physical ones by default.
        memory: Bytes that it may take beyond what the process has; what is available by default.

    Raises:
        BundleError: The model, the weights or the report are not valid, or do not fit the manifest.
    """

    def __init__(self, archive: Archive, *, threads: int | None = None, memory: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ExecutionError(f"threads={threads}; at least 1 is needed, or None for all physical cores.")
        if memory is not None and memory < 1:
            raise ExecutionError(f"memory={memory}; at least 1 byte is needed, or None for what is available.")
        self._archive, self._threads = archive, threads
        left = available()
        self._memory = memory if memory is not None or left is None else max(left, LEAST)
        self._weights = WeightsFile(archive.weights())
        self._model: ModelProto = read_model(archive.read(MODEL), archive.manifest, self._weights)
        _check_weights(archive.manifest, self._weights)
        self._plan = plan_of(_object(read_json(archive.read(REPORT), REPORT)))
        self._entries = {entry.name: entry for entry in archive.manifest.kernels}
        self._kernels: dict[str, QuantumKernel] = {}
        self._elsewhere: frozenset[str] = frozenset()
        self._stages: list[Stage] = cut(self._model, frozenset())
        self._sessions: dict[tuple[frozenset[str], int], Session] = {}
        if all(entry.needs_executor is None for entry in archive.manifest.kernels):
            self._sessions[frozenset(), 0] = Session(self._model, self._weights.data, threads, self._memory)

    @property
    def path(self) -> Path:
        """Where it was loaded from."""
        return self._archive.path

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._archive.manifest

    @property
    def kernels(self) -> Mapping[str, QuantumKernel]:
        """The kernels by region name, in torch, with the bundle's weights, in evaluation mode.

        Raises:
            BundleError: One is of a kind that is not installed, or does not fit its weights.
        """
        return {name: self._kernel(name) for name in self._entries}

    @property
    def plan(self) -> PartitionPlan:
        """What was found in the model, what it costs and what was decided."""
        return self._plan

    @property
    def target(self) -> Target:
        """The device that the plan was made for.

        Raises:
            BundleError: The bundle does not describe it, and none of that name is known.
        """
        from qcascade.targets import get_target

        entry = self.manifest.target
        try:
            if entry.document is None:
                return get_target(entry.name)
            return Target.from_json(json.dumps(entry.document))
        except TargetError as error:
            raise BundleError(f"the bundle's target {entry.name!r}: {error}") from error

    def use(self, executor: str | Executor = ONNX, kernels: str | Iterable[str] | None = None, **options: Any) -> Self:
        """Choose how kernels run; the rest stays in onnxruntime.

        Args:
            executor: "onnxruntime" simulates exactly, with all the rest; "statevector" simulates exactly in torch;
                "shots", "noisy", or any `Executor`.
            kernels: Names of regions, globs too; all by default. Other kernels keep what they have.
            options: Of a named executor; for "noisy" the `target` is the bundle's by default.

        Returns:
            The bundle itself.

        Raises:
            ExecutionError: The executor or a kernel is unknown, or it takes no such option; or a kernel whose function has no
                body is sent to onnxruntime.
        """
        chosen = self._chosen(kernels)
        if executor == ONNX:
            if options:
                raise ExecutionError(f"{ONNX!r} takes no options, got {', '.join(options)}.")
            for entry in chosen:
                if kernels is not None and entry.needs_executor is not None:
                    raise ExecutionError(_without_body(entry))
            self._elsewhere -= {entry.node for entry in chosen}
        else:
            if executor == "noisy":
                options.setdefault("target", self.target)
            made = make_executor(executor, **options)
            for entry in chosen:
                self._kernel(entry.name).executor = made
            self._elsewhere |= {entry.node for entry in chosen}
        self._stages = cut(self._model, self._elsewhere)
        return self

    def __call__(self, **inputs: NDArray[Any] | Tensor) -> dict[str, Any]:
        """The outputs by name: numpy arrays, or torch tensors where an input is one.

        Raises:
            ExecutionError: The inputs do not fit, or a kernel has no body and was given no executor.
        """
        for entry in self.manifest.kernels:
            if entry.needs_executor is not None and entry.node not in self._elsewhere:
                raise ExecutionError(_without_body(entry))
        values: Arrays = checked_inputs(self.manifest.inputs, inputs)
        for number, stage in enumerate(self._stages):
            for node in stage.kernels:
                values.update(self._run_kernel(node, values))
            if stage.nodes:
                session = self._session(number, stage, values)
                try:
                    values.update(session.run(values))
                except ExecutionError as error:
                    raise ExecutionError(f"{error}{_too_long(self.manifest, values)}") from error.__cause__
        outputs = {entry.name: values[entry.name] for entry in self.manifest.outputs}
        if any(isinstance(value, Tensor) for value in inputs.values()):
            return {name: torch.from_numpy(value) for name, value in outputs.items()}
        return dict(outputs)

    def to_torch(self) -> HybridModule:
        """The hybrid that was exported, trainable.

        Raises:
            BundleError: The bundle holds none, or it does not fit the weights.
        """
        from qcascade.bundle.to_torch import to_torch

        return to_torch(self._archive)

    def close(self) -> None:
        """Let go of the file; the bundle can still be called, but not turned into torch."""
        self._archive.close()

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}: {self.manifest.model}, {len(self._entries)} kernels)"

    def _chosen(self, kernels: str | Iterable[str] | None) -> list[KernelEntry]:
        if kernels is None:
            return list(self._entries.values())
        chosen: dict[str, KernelEntry] = {}
        for pattern in [kernels] if isinstance(kernels, str) else kernels:
            found = [name for name in self._entries if name == pattern or fnmatch.fnmatchcase(name, pattern)]
            if not found:
                raise ExecutionError(
                    f"the bundle has no kernel {pattern!r}; it has {', '.join(self._entries) or 'none'}."
                )
            chosen.update((name, self._entries[name]) for name in found)
        return list(chosen.values())

    def _kernel(self, name: str) -> QuantumKernel:
        """A kernel in torch, made when it is first asked for."""
        if name not in self._kernels:
            self._kernels[name] = _made(self._entries[name], self._weights)
        return self._kernels[name]

    def _run_kernel(self, node: str, values: Arrays) -> Arrays:
        entry = next(entry for entry in self.manifest.kernels if entry.node == node)
        try:
            tensors = [torch.from_numpy(np.array(self._value(name, values))) for name in entry.inputs]
            with torch.no_grad(), bounded(self._memory):
                result = self._kernel(entry.name)(*tensors)
        except (RuntimeError, TypeError, ValueError, IndexError, MemoryError) as error:
            hint = out_of_memory(error, self._memory)
            raise ExecutionError(f"kernel {entry.name!r} failed: {error}.{hint}") from error
        if not isinstance(result, Tensor) or len(entry.outputs) != 1:
            raise ExecutionError(f"kernel {entry.name!r} returns {type(result).__name__}; one tensor is needed.")
        return {entry.outputs[0]: result.numpy()}

    def _value(self, name: str, values: Arrays) -> NDArray[Any]:
        if name in values:
            return values[name]
        from onnx import numpy_helper  # a weight

        tensor = next(tensor for tensor in self._model.graph.initializer if tensor.name == name)
        if not tensor.data_location:
            return numpy_helper.to_array(tensor)
        offset = next(int(entry.value) for entry in tensor.external_data if entry.key == "offset")
        stored = next(name for name, place in self._weights.places.items() if place.offset == offset)
        return self._weights.tensor(stored).numpy()

    def _session(self, number: int, stage: Stage, values: Arrays) -> Session:
        key = (self._elsewhere, number)
        if key not in self._sessions:
            types = {name: element_type(values[name]) for name in stage.takes}
            part = stage_model(self._model, stage, types)
            self._sessions[key] = Session(part, self._weights.data, self._threads, self._memory)
        return self._sessions[key]


def _made(entry: KernelEntry, weights: WeightsFile) -> QuantumKernel:
    """A kernel of its arguments, with its weights."""
    here = f"kernel {entry.name!r}"
    try:
        kind = KERNELS.get(entry.kernel)
        with torch.device("meta"):  # nothing is allocated for what a file merely says
            kernel = kind.from_arguments(entry.arguments)
    except (PlanError, CircuitError) as error:
        raise BundleError(f"{here} cannot be made: {error}") from error
    state = kernel.state_dict(keep_vars=True)
    if set(state) != set(entry.weights):
        differ = sorted(set(state) ^ set(entry.weights))
        raise BundleError(f"{here} and its weights differ: {', '.join(differ)[:200]}.")
    for name, parameter in state.items():
        place = weights.places[entry.weights[name]]
        if place.shape != tuple(parameter.shape) or place.dtype.is_floating_point != parameter.is_floating_point():
            raise BundleError(
                f"{here}: {name} is {place.dtype} {list(place.shape)}; {parameter.dtype} {list(parameter.shape)} is needed."
            )
    kernel.load_state_dict({name: weights.tensor(tensor) for name, tensor in entry.weights.items()}, assign=True)
    return kernel.eval().requires_grad_(False)


def _check_weights(manifest: Manifest, weights: WeightsFile) -> None:
    for entry in manifest.kernels:
        for name, tensor in {**entry.weights, **entry.derived}.items():
            if tensor not in weights.places:
                raise BundleError(f"kernel {entry.name!r}: its weight {name!r} is {tensor!r}, which is not stored.")


def _without_body(entry: KernelEntry) -> str:
    return (
        f"kernel {entry.name!r} cannot run in onnxruntime: {entry.needs_executor}. Call bundle.use('statevector') for exact "
        "simulation in torch, or give another executor."
    )


def _too_long(manifest: Manifest, values: Arrays) -> str:
    """A sentence on inputs that may be longer than a kernel's register holds: onnxruntime speaks of products alone.

    Which axis is the sequence is not written in a bundle; it is the second one as a rule.
    """
    length = max((values[entry.name].shape[1] for entry in manifest.inputs if values[entry.name].ndim > 1), default=0)
    for entry in manifest.kernels:
        most = entry.arguments.get("max_length")
        if isinstance(most, int) and length > most:
            return (
                f" An input has {length} entries along its second axis, and kernel {entry.name!r} takes at most {most} positions: "
                "if that is why, truncate it."
            )
    return ""


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{REPORT} holds {type(value).__name__}; an object is needed.")
    return value
