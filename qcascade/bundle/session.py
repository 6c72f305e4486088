"""onnxruntime sessions on a bundle's weights: a checked model in, a function of named arrays out.

The weights are given as the mapped file, so that onnxruntime opens no file itself; it keeps a copy of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcascade.bundle.manifest import WEIGHTS
from qcascade.errors import BundleError, ExecutionError

if TYPE_CHECKING:
    from onnx import ModelProto

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
        if any(tensor.data_location for tensor in model.graph.initializer):
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


def _errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException", "InvalidProtobuf",
             "ModelLoaded", "NotImplemented", "InvalidGraph", "EPFail")  # fmt: skip
    own = [getattr(state, name) for name in names if hasattr(state, name)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:500].rstrip(". ")
