"""All tensors of a hybrid in one safetensors file: which there are, under what names, and where their bytes lie.

What comes in: a hybrid. What goes out: a file in safetensors' form whose bytes depend on names and values alone, written
tensor by tensor without a second copy of the model; and every tensor's place in it, which is what ONNX external data
needs. Every tensor is written once, a tied one under the first of its names.

Tensors lie by the size of their elements, largest first, then by name, and the data begins at a multiple of 64 bytes, so
that every tensor is aligned to its elements in a mapped file. (The form allows no gaps, so no more than that.) Refused:
tensors without data (meta), sparse or quantised ones, and dtypes that safetensors does not have.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qcascade.errors import BundleError
from qcascade.hybrid import HybridModule

FILE = "weights.safetensors"
_ALIGNMENT = 64  # bytes, of the first tensor
_CHUNK = 2**26  # bytes, copied at a time from other devices and strides
DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64", torch.complex64: "C64", torch.float32: "F32",
    torch.int32: "I32", torch.uint32: "U32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int16: "I16",
    torch.uint16: "U16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """A hybrid's tensors, each once, in the order of its module tree, and the other names of tied ones."""

    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]  # another name of a tensor -> the name it is stored under


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a tensor's bytes lie in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the file
    length: int  # bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """A file of tensors before it is written: its first bytes, and the places of all tensors in file order."""

    header: bytes
    places: Mapping[str, Placement]
    size: int  # bytes, of the whole file


def stored_tensors(hybrid: HybridModule) -> StoredTensors:
    """Every parameter and buffer of a hybrid, non-persistent buffers and the graphs' constants included.

    Names are dotted paths as in `state_dict`. The first name of a tensor is the one that comes first in the tree,
    parameters before buffers.

    Example:
        >>> import qcascade
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> hybrid = qcascade.compile(model, (torch.zeros(2, 8),), kernels=["amplitude_adapter"], include="0")
        >>> sorted(stored_tensors(hybrid).tensors)
        ['0.bias', '0.quantum.angles', '0.quantum.up.weight', '0.weight', '1.bias', '1.weight']
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in _named(hybrid):
        if (known := first.setdefault(id(tensor), name)) == name:
            tensors[name] = tensor.detach()
        else:
            aliases[name] = known
    return StoredTensors(tensors, aliases)


def _named(hybrid: HybridModule) -> Iterator[tuple[str, Tensor]]:
    yield from hybrid.named_parameters(remove_duplicate=False)
    yield from hybrid.named_buffers(remove_duplicate=False)


def layout(tensors: Mapping[str, Tensor]) -> Layout:
    """Where tensors will lie; nothing is written and no data is read.

    Raises:
        BundleError: A tensor cannot be stored.

    Example:
        >>> layout({"b": torch.zeros(2, dtype=torch.int8), "a": torch.zeros(3)}).places["b"].length
        2
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.is_meta:
            raise BundleError(
                f"tensor {name!r} is {tensor.dtype}, {tensor.layout} on {tensor.device}; a bundle holds dense tensors with data, of "
                f"{', '.join(str(d).removeprefix('torch.') for d in DTYPES)}. Convert it, or move the model off the meta device."
            )
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    lengths, begin = {}, 0
    for name in order:
        tensor = tensors[name]
        lengths[name] = tensor.numel() * tensor.element_size()
        ends = [begin, begin + lengths[name]]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": ends}
        begin = ends[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    first = 8 + len(text)
    places, offset = {}, first
    for name in order:
        places[name] = Placement(tensors[name].dtype, tuple(tensors[name].shape), offset, lengths[name])
        offset += lengths[name]
    return Layout(len(text).to_bytes(8, "little") + text, places, offset)


def write_weights(write: Callable[[memoryview], object], planned: Layout, tensors: Mapping[str, Tensor]) -> None:
    """Write the file, tensor by tensor, straight from their storage.

    Args:
        write: A stream's `write`, or anything that takes the next bytes (to hash them too).
        planned: `layout` of the same tensors.
        tensors: As laid out. Those of other devices or strides are copied, a piece at a time.

    Example:
        >>> import io
        >>> from safetensors.torch import load
        >>> tensors, stream = {"a": torch.arange(3.0)}, io.BytesIO()
        >>> write_weights(stream.write, layout(tensors), tensors)
        >>> load(stream.getvalue())["a"]
        tensor([0., 1., 2.])
    """
    write(memoryview(planned.header))
    for name in planned.places:
        for piece in _pieces(tensors[name].detach()):
            write(piece.view(torch.uint8).numpy().data)


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The elements in order as flat CPU tensors; views where the storage has them so."""
    if not tensor.numel():
        return
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if tensor.device.type == "cpu" and tensor.is_contiguous():
        yield tensor.reshape(-1)
        return
    row = max(1, _CHUNK // max(1, tensor[:1].numel() * tensor.element_size())) if tensor.dim() else 1
    for part in tensor.split(row) if tensor.dim() else (tensor,):
        yield part.cpu().contiguous().reshape(-1)
