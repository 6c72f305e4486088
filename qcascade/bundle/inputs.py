"""A call's named inputs, checked against what the manifest lists: arrays or tensors in, arrays of the listed dtypes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qcascade.bundle.manifest import TensorEntry
from qcascade.capture.graph import SizeRule
from qcascade.errors import ExecutionError

_MASK, _IDS = "attention_mask", "input_ids"


def checked_inputs(
    entries: Sequence[TensorEntry], given: Mapping[str, NDArray[Any] | Tensor]
) -> dict[str, NDArray[Any]]:
    """The inputs in the order and dtypes listed; a full attention mask may be left out, but for a `required` one.

    Raises:
        ExecutionError: One is missing, unknown, or of another kind, shape or range.

    Example:
        >>> ids = TensorEntry(name="input_ids", dtype="int64", shape=("batch", "length"))
        >>> mask = TensorEntry(name="attention_mask", dtype="int64", shape=("batch", "length"))
        >>> checked_inputs([ids, mask], {"input_ids": np.array([[3, 4]], np.int32)})["attention_mask"]
        array([[1, 1]])
    """
    names = [entry.name for entry in entries]
    if unknown := [name for name in given if name not in names]:
        raise ExecutionError(f"the bundle has no input {unknown[0]!r}; it takes {', '.join(names)}.")
    found: dict[str, NDArray[Any]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for entry in entries:
        if entry.name in given:
            value = _array(given[entry.name], entry)
        elif entry.name == _MASK and _IDS in given and not entry.required:
            value = np.ones(_array(given[_IDS], entry).shape, entry.dtype)
        else:
            raise ExecutionError(f"input {entry.name!r} is missing; the bundle takes {', '.join(names)}.")
        _check_shape(value, entry, sizes)
        _check_ids(value, entry)
        found[entry.name] = value
    return found


def _array(value: object, entry: TensorEntry) -> NDArray[Any]:
    if isinstance(value, Tensor):
        try:
            array: NDArray[Any] = value.detach().cpu().numpy()
        except TypeError as error:
            raise ExecutionError(
                f"{entry.name} is {value.dtype}, which numpy does not have; give {entry.dtype}."
            ) from error
    elif isinstance(value, np.ndarray):
        array = value
    else:
        raise ExecutionError(f"{entry.name} must be a numpy array or a tensor, got {type(value).__name__}.")
    wanted = np.dtype(entry.dtype)
    kinds = {"i": "integer", "u": "integer", "f": "floating-point", "b": "boolean"}
    if kinds.get(array.dtype.kind) != kinds[wanted.kind]:
        raise ExecutionError(f"{entry.name} is {array.dtype}; {kinds[wanted.kind]} values like {wanted} are accepted.")
    if wanted.kind in "iu" and array.size and array.dtype != wanted:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise ExecutionError(f"{entry.name} holds values beyond {wanted}.")
    return np.ascontiguousarray(array.astype(wanted, copy=False)).reshape(array.shape)


def _check_shape(value: NDArray[Any], entry: TensorEntry, sizes: dict[str, tuple[int, str]]) -> None:
    shape = [("any" if size is None else size) for size in entry.shape]
    if value.ndim != len(entry.shape):
        raise ExecutionError(f"{entry.name} has shape {list(value.shape)}; {shape} is accepted.")
    for axis, (given, size) in enumerate(zip(value.shape, entry.shape, strict=True)):
        if isinstance(size, int) and given != size:
            raise ExecutionError(f"{entry.name} has shape {list(value.shape)}; {shape} is accepted.")
        if isinstance(size, str):
            known, first = sizes.setdefault(size, (given, entry.name))
            if known != given:
                raise ExecutionError(
                    f"{entry.name} has {given} for {size!r} and {first} has {known}; give one size for both."
                )
        most = entry.maximum[axis] if entry.maximum is not None and axis < len(entry.maximum) else None
        if most is not None and given > most:
            raise ExecutionError(
                f"{entry.name} has shape {list(value.shape)}; dimension {axis} can be at most {most}. Truncate it."
            )
        bounds = entry.rules[axis] if entry.rules is not None and axis < len(entry.rules) else None
        if bounds is not None and not (rule := SizeRule(*bounds)).accepts(given):
            raise ExecutionError(
                f"{entry.name} has shape {list(value.shape)}; dimension {axis} must be {rule}. Pad it."
            )


def _check_ids(value: NDArray[Any], entry: TensorEntry) -> None:
    if entry.ids_below is None or not value.size or value.dtype.kind not in "iu":
        return
    low, high = int(value.min()), int(value.max())
    if low < 0 or high >= entry.ids_below:
        raise ExecutionError(
            f"{entry.name} holds the token id {low if low < 0 else high}; ids from 0 to {entry.ids_below - 1} are accepted. "
            "Check that the tokenizer belongs to the model."
        )
