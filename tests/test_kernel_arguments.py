"""A kernel's arguments rebuild an equal kernel, and wrong ones are one PlanError before anything large is built."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qcascade.errors import PlanError
from qcascade.kernels import KERNELS, AmplitudeAdapter, AmplitudeAttentionPooling, QuantumKernel, RandomCircuitEmbedding
from qcascade.kernels.head import ReuploadingHead

KERNEL_EXAMPLES: list[QuantumKernel] = [
    AmplitudeAdapter(12, 5, layers=2, alpha=0.5, entangler="chain"),
    AmplitudeAttentionPooling(8, 2, 10, head_dim=3, slots=2, layers=1, local_width=3, dropout=0.25, bias=False),
    RandomCircuitEmbedding(50, 6, qubits=3, layers=2, rotations=2, angles="compositional", base=8, padding_index=1, seed=3),
    ReuploadingHead(10, 3, qubits=4, uploads=1, blocks=2, offsets=1, measured=2, entangler="cycle"),
]  # fmt: skip
INPUTS: list[tuple[Tensor, ...]] = [
    (torch.randn(3, 12), torch.randn(3, 5)),
    (torch.randn(2, 7, 8),),
    (torch.tensor([[0, 1, 49]]),),
    (torch.randn(3, 10),),
]


@pytest.mark.parametrize("number", range(4), ids=[type(k).kernel_name for k in KERNEL_EXAMPLES])
def test_arguments_rebuild_an_equal_kernel(number: int) -> None:
    kernel, inputs = KERNEL_EXAMPLES[number], INPUTS[number]
    arguments = json.loads(json.dumps(dict(kernel.arguments()), allow_nan=False))
    again = KERNELS.get(type(kernel).kernel_name).from_arguments(arguments)
    again.load_state_dict(kernel.state_dict())
    assert dict(again.arguments()) == dict(kernel.arguments())
    assert {n: t.circuit.to_dict() for n, t in again.templates().items()} == {
        n: t.circuit.to_dict() for n, t in kernel.templates().items()
    }
    assert torch.equal(again.eval()(*inputs), kernel.eval()(*inputs))


@pytest.mark.parametrize("number", range(4))
def test_about_as_many_gates_as_were_said(number: int) -> None:
    kernel = KERNEL_EXAMPLES[number]
    built = sum(template.circuit.n_gates for template in kernel.templates().values())
    assert built / 2 <= type(kernel).gates(kernel.arguments()) <= 3 * built


@pytest.mark.parametrize("number", range(4))
def test_on_the_meta_device_nothing_is_allocated(number: int) -> None:
    kernel = KERNEL_EXAMPLES[number]
    with torch.device("meta"):
        made = type(kernel).from_arguments(kernel.arguments())
    assert {n: (p.shape, p.device.type) for n, p in made.named_parameters()} == {
        n: (p.shape, "meta") for n, p in kernel.named_parameters()
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": 10**6}, "gates"),
        ({"layers": "2"}, "layers"),
        ({"layers": True}, "layers"),
        ({"alpha": float("inf")}, "alpha"),
        ({"entangler": "x" * 100}, "entangler"),
        ({"entangler": "grid"}, "entangler"),
        ({"out_features": 2**40}, "out_features"),
        ({"out_features": -1}, "cannot be made"),
        ({"in_features": 0}, "in_features|cannot"),
        ({"self": 3}, "self"),
        ({"in_features": None}, "in_features"),
    ],
)
def test_wrong_arguments_are_one_error(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        AmplitudeAdapter.from_arguments({**KERNEL_EXAMPLES[0].arguments(), **change})


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(PlanError, match="out_features"):
        AmplitudeAdapter.from_arguments({"in_features": 4})


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 40),
    st.just(10**12),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.none()),
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_anything_else_is_a_kernel_or_a_plan_error(data: st.DataObject) -> None:
    kernel = data.draw(st.sampled_from(KERNEL_EXAMPLES))
    name = data.draw(st.sampled_from(sorted(kernel.arguments())))
    with torch.device("meta"):
        try:
            made = type(kernel).from_arguments({**kernel.arguments(), name: data.draw(VALUES)})
        except PlanError:
            return
    assert isinstance(made, type(kernel))


class _Plain(AmplitudeAdapter):
    """A kernel of another package."""

    def __init__(self, in_features: int, note: str = "") -> None:
        super().__init__(in_features, 4)
        self.note = note


class _Forgetful(AmplitudeAdapter):
    def __init__(self, in_features: int, scale: float) -> None:
        super().__init__(in_features, 4)


class _Variadic(AmplitudeAdapter):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)


def test_kernels_of_other_packages() -> None:
    kernel = _Plain(8, "a")
    # gates() of the parent reads `layers`, which this constructor does not take
    kernel_type = type("_Own", (_Plain,), {"gates": classmethod(lambda cls, arguments: 0)})
    assert kernel.arguments() == {"in_features": 8, "note": "a"}
    assert kernel_type.from_arguments({"in_features": 8}).arguments() == {"in_features": 8, "note": ""}
    with pytest.raises(PlanError, match=r"self\.scale"):
        _Forgetful(8, 1.0).arguments()
    with pytest.raises(PlanError, match="override"):
        _Variadic(8, 4).arguments()
