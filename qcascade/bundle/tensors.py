"""The tensors of a bundle's `weights.safetensors`, in place: the mapped file in, arrays and torch tensors out.

The header is checked before anything is taken from it: its length, names once, known dtypes, sizes that fit the shapes,
and data that covers the file without gaps and without overlap, as the format asks.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qcascade.bundle.manifest import WEIGHTS
from qcascade.bundle.strict_json import read_json
from qcascade.errors import BundleError

MAX_HEADER = 16 << 20  # bytes
MAX_RANK = 16
DTYPES = {
    "F64": torch.float64, "I64": torch.int64, "U64": torch.uint64, "C64": torch.complex64, "F32": torch.float32,
    "I32": torch.int32, "U32": torch.uint32, "F16": torch.float16, "BF16": torch.bfloat16, "I16": torch.int16,
    "U16": torch.uint16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the file
    length: int  # bytes


class WeightsFile:
    """A mapped file of tensors.

    Args:
        data: The whole file.

    Raises:
        BundleError: It is no safetensors file, or its header does not fit its data.

    Example:
        >>> from safetensors.torch import save
        >>> WeightsFile(memoryview(save({"a": torch.arange(3)}))).tensor("a")
        tensor([0, 1, 2])
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.places = _places(data)
        self.spans = {(p.offset, p.length, p.dtype, p.shape) for p in self.places.values()}

    def tensor(self, name: str) -> Tensor:
        """A copy of a tensor.

        Raises:
            BundleError: There is none of that name.
        """
        if name not in self.places:
            raise BundleError(f"{WEIGHTS} has no tensor {name[:100]!r}.")
        place = self.places[name]
        copied = bytearray(self.data[place.offset : place.offset + place.length])
        if not copied:
            return torch.empty(place.shape, dtype=place.dtype)
        if place.dtype == torch.bool and not set(copied) <= {0, 1}:
            raise BundleError(f"{WEIGHTS}: {name[:100]!r} is boolean and holds other bytes than 0 and 1.")
        return torch.frombuffer(copied, dtype=place.dtype).reshape(place.shape)


def _places(data: memoryview) -> dict[str, Place]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise BundleError(f"{WEIGHTS} is no safetensors file: its header would have {length} bytes, of {len(data)}.")
    header = read_json(bytes(data[8 : 8 + length]), WEIGHTS)
    if not isinstance(header, dict):
        raise BundleError(f"{WEIGHTS} is no safetensors file: its header is no object.")
    start, places = 8 + length, {}
    for name, entry in header.items():
        if name != "__metadata__":
            places[name] = _place(name, entry, start)
    end = start
    for name, place in sorted(places.items(), key=lambda item: (item[1].offset, item[1].length)):
        if place.offset != end:
            raise BundleError(f"{WEIGHTS}: {name[:100]!r} begins at byte {place.offset}, where {end} is next.")
        end += place.length
    if end != len(data):
        raise BundleError(f"{WEIGHTS} has {len(data)} bytes, its tensors end at {end}.")
    return places


def _place(name: str, entry: object, start: int) -> Place:
    here = f"{WEIGHTS}: {name[:100]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{here} must have dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise BundleError(f"{here} has dtype {str(dtype)[:40]}; one of {', '.join(DTYPES)} is read.")
    if not _sizes(shape) or len(shape) > MAX_RANK or not _sizes(offsets) or len(offsets) != 2:
        raise BundleError(f"{here}: shape and data_offsets must be short lists of sizes.")
    length = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != length:
        raise BundleError(f"{here} has {offsets[1] - offsets[0]} bytes, its shape needs {length}.")
    return Place(DTYPES[dtype], tuple(shape), start + offsets[0], length)


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**62 for one in value)
