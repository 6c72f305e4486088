"""The weights file: safetensors reads it, its bytes depend on values alone, tied tensors lie in it once, places are right."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load
from torch import Tensor, nn

import qcascade
from qcascade.bundle.weights import DTYPES, layout, stored_tensors, write_weights
from qcascade.errors import BundleError


def written(tensors: dict[str, Tensor]) -> bytes:
    stream = io.BytesIO()
    write_weights(stream.write, layout(tensors), tensors)
    return stream.getvalue()


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda n: n != "__metadata__"),
        st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 4), max_size=3)),
        max_size=6,
    )
)
def test_safetensors_reads_what_was_written(shapes: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        data = torch.randint(0, 2, shape) if dtype == torch.bool else torch.randint(0, 100, shape)
        tensors[name] = data.to(dtype)
    content, planned = written(tensors), layout(tensors)
    assert len(content) == planned.size
    read = load(content)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        place = planned.places[name]
        assert place.offset % tensor.element_size() == 0
        raw = content[place.offset : place.offset + place.length]
        assert raw == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert read[name].reshape(-1).view(torch.uint8).tolist() == list(raw)
    assert content == written(dict(reversed(tensors.items())))


def test_strided_tensors_are_written_in_order() -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(load(written({"a": matrix.T}))["a"], matrix.T)
    assert torch.equal(load(written({"a": matrix[:, 1]}))["a"], matrix[:, 1])
    wide = torch.arange(2.0).reshape(1, 2, 1).expand(3, 2, 2)
    assert torch.equal(load(written({"a": wide}))["a"], wide)


def test_no_second_copy() -> None:
    tensors = {f"w{k}": torch.zeros(2**20) for k in range(8)}  # 32 MiB
    digest = hashlib.sha256()
    tracemalloc.start()
    write_weights(digest.update, layout(tensors), tensors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_tied_tensors_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
            self.second.weight = self.first.weight
            self.register_buffer("scale", torch.ones(8), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x)) * self.scale + torch.tensor(0.5))

    stored = stored_tensors(qcascade.compile(Tied(), (torch.zeros(2, 8),), kernels=["reuploading_head"]))
    assert stored.aliases["second.weight"] == "first.weight"
    assert "second.weight" not in stored.tensors
    assert "scale" in stored.tensors
    assert any(name.startswith("_eval_lifted") for name in stored.tensors)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex128), torch.zeros(2, device="meta"), torch.eye(2).to_sparse()]
)
def test_what_cannot_be_stored_is_refused(tensor: Tensor) -> None:
    with pytest.raises(BundleError, match="'a'"):
        layout({"a": tensor})
