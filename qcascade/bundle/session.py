"""onnxruntime sessions on a bundle's weights: a checked model in, a function of named arrays out.

The weights are given as views of the mapped file, so that onnxruntime opens no file itself and copies only what it arranges
anew. (The whole file at once would be copied first, and could have no tensor of 2 GB.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcascade.bundle.memory import bounded
from qcascade.errors import BundleError, ExecutionError

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_MEMORY = ("allocate memory", "bad allocation", "bad_alloc", "can't allocate")  # in messages of onnxruntime and torch
Arrays = dict[str, NDArray[Any]]


class Session:
    """A model, or a part of one, in onnxruntime on the CPU.

    Args:
        model: Checked.
        weights: The mapped weights' file.
        threads: Cores an operator may take; onnxruntime's choice (the physical cores) by default.
        memory: Bytes that loading, or a run, may take beyond what the process has (`memory.bounded`).

    Raises:
        BundleError: onnxruntime refuses the model.
    """

    def __init__(self, model: ModelProto, weights: memoryview, threads: int | None, memory: int | None = None) -> None:
        import onnxruntime

        self._memory = memory
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what matters is raised
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
        outside = [tensor for tensor in model.graph.initializer if tensor.data_location]
        try:
            with bounded(memory):
                self._views = [_view(tensor, weights) for tensor in outside]  # kept for as long as the session
                options.add_external_initializers([tensor.name for tensor in outside], self._views)
                self._session = onnxruntime.InferenceSession(
                    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
                )
        except _errors() as error:
            raise BundleError(f"onnxruntime refuses the bundle's model: {_short(error)}.{self._hint(error)}") from error

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """All outputs; what the model does not take is left aside.

        Raises:
            ExecutionError: onnxruntime fails on these inputs.
        """
        names = [value.name for value in self._session.get_outputs()]
        try:
            with bounded(self._memory):
                values = self._session.run(
                    names, {value.name: inputs[value.name] for value in self._session.get_inputs()}
                )
        except _errors() as error:
            raise ExecutionError(f"onnxruntime failed: {_short(error)}.{self._hint(error)}") from error
        return dict(zip(names, values, strict=True))

    def _hint(self, error: Exception) -> str:
        return out_of_memory(error, self._memory)


def out_of_memory(error: Exception, allowed: int | None) -> str:
    """A sentence for errors that are about memory, else nothing."""
    text = str(error)
    if allowed is None or not (isinstance(error, MemoryError) or any(word in text for word in _MEMORY)):
        return ""
    return (
        f" It may take {allowed} bytes beyond what the process has: what was available when the bundle was loaded, or memory= of "
        "qcascade.load."
    )


def element_type(array: NDArray[Any]) -> int:
    """ONNX's number of an array's dtype."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype)))


def _view(tensor: TensorProto, weights: memoryview) -> Any:
    """A tensor as onnxruntime's value over the mapped file."""
    import onnxruntime
    from onnx import helper

    offset = next(int(entry.value) for entry in tensor.external_data if entry.key == "offset")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    raw = np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype  # bfloat16 and the like are not numpy's own
    array = np.ndarray(tuple(tensor.dims), raw, weights, offset)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, tensor.data_type)


def _errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException", "InvalidProtobuf",
             "ModelLoaded", "NotImplemented", "InvalidGraph", "EPFail")  # fmt: skip
    own = [getattr(state, name) for name in names if hasattr(state, name)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500].rstrip(". ")
