"""onnxruntime sessions on a bundle's weights: a checked model in, a function of named arrays out.

The weights are given as the mapped file, so that onnxruntime opens no file itself; it keeps a copy of its own, but where a
tensor is too large for that (2 GB): then all are used in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcascade.bundle.manifest import WEIGHTS
from qcascade.errors import BundleError, ExecutionError

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_EMBEDDED = 2**31 - 1  # bytes of a tensor that onnxruntime takes out of a file in memory
Arrays = dict[str, NDArray[Any]]


class Session:
    """A model, or a part of one, in onnxruntime on the CPU.

    Args:
        model: Checked.
        weights: The mapped weights' file.
        threads: Cores an operator may take; onnxruntime's choice (the physical cores) by default.

    Raises:
        BundleError: onnxruntime refuses the model.
    """

    def __init__(self, model: ModelProto, weights: memoryview, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what matters is raised
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
        outside = [tensor for tensor in model.graph.initializer if tensor.data_location]
        if any(_span(tensor)[1] >= _EMBEDDED for tensor in outside):
            self._views = [
                _view(tensor, weights) for tensor in outside
            ]  # used in place: they live as long as the session
            options.add_external_initializers([tensor.name for tensor in outside], self._views)
        elif outside:
            options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except _errors() as error:
            raise BundleError(f"onnxruntime refuses the bundle's model: {_short(error)}.") from error

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """All outputs; what the model does not take is left aside.

        Raises:
            ExecutionError: onnxruntime fails on these inputs.
        """
        names = [value.name for value in self._session.get_outputs()]
        try:
            values = self._session.run(names, {value.name: inputs[value.name] for value in self._session.get_inputs()})
        except _errors() as error:
            raise ExecutionError(f"onnxruntime failed: {_short(error)}.") from error
        return dict(zip(names, values, strict=True))


def element_type(array: NDArray[Any]) -> int:
    """ONNX's number of an array's dtype."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype)))


def _span(tensor: TensorProto) -> tuple[int, int]:
    """Where a tensor begins in the weights' file, and how many bytes it has."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return int(entries["offset"]), int(entries["length"])


def _view(tensor: TensorProto, weights: memoryview) -> Any:
    """A tensor as onnxruntime's value over the mapped file."""
    import onnxruntime
    from onnx import helper

    offset, length = _span(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    array = np.frombuffer(weights[offset : offset + length], dtype).reshape(tuple(tensor.dims))
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException", "InvalidProtobuf",
             "ModelLoaded", "NotImplemented", "InvalidGraph", "EPFail")  # fmt: skip
    own = [getattr(state, name) for name in names if hasattr(state, name)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500].rstrip(". ")
