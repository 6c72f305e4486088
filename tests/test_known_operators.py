"""Programs rewritten for ONNX without being traced anew: the same function, or left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from qcascade.bundle.known_operators import in_known_operators

_aten = torch.ops.aten
KNOWN = {
    _aten.add.Tensor, _aten.mul.Tensor, _aten.bitwise_and.Tensor, _aten.bitwise_or.Tensor, _aten._to_copy.default,
    _aten.permute.default, _aten.transpose.int, _aten.reshape.default, _aten.sym_size.int, _aten.gt.Scalar, _aten.relu.default,
}  # fmt: skip


class Every(nn.Module):
    """All that is rewritten, shapes of strides that no view has, and casts of what it gives."""

    def forward(self, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        heads = x.unflatten(2, (2, 3)).transpose(1, 2)  # [batch, 2, length, 3]
        joined = torch.dropout(heads.flatten(2, 3), 0.5, False).reshape(x.shape[0], -1)
        mask = (x > 0) & (x > 1) | (x > -1)
        return (joined + 1).to(torch.float32), mask.to(torch.float32), weight.T.to(torch.float32) * 2, mask.to("cpu")


def program(model: nn.Module, *inputs: Tensor) -> ExportedProgram:
    shapes = [tuple(Dim.AUTO for _ in given.shape) for given in inputs]
    return torch.export.export(model, inputs, dynamic_shapes=tuple(shapes), strict=False)


def targets(exported: ExportedProgram) -> list[object]:
    return [node.target for node in exported.graph.nodes]


def test_what_is_rewritten_computes_the_same_at_every_size() -> None:
    made = program(Every(), torch.randn(3, 5, 6), torch.randn(4, 7))
    assert in_known_operators(made, KNOWN)
    assert set(targets(made)) - KNOWN <= {
        node.target for node in made.graph.nodes if node.op in ("placeholder", "output")
    }
    for shape in ((3, 5, 6), (2, 9, 6), (7, 2, 6)):
        given = torch.randn(shape), torch.randn(shape[0], 3)
        torch.testing.assert_close(made.module(check_guards=False)(*given), Every()(*given))


class Writing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.float32) + 1).relu_()


class Training(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.dropout((x + 1).to(torch.float32), 0.5, True) + 1


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 1).to(torch.float32).cumsum(1)


@pytest.mark.parametrize("kind", [Writing, Training, Unknown])
def test_what_it_has_no_equivalent_of_is_left_to_torch(kind: type[nn.Module]) -> None:
    made = program(kind(), torch.randn(3, 4))
    before = targets(made)
    assert not in_known_operators(made, KNOWN)
    assert targets(made) == before
