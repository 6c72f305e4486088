"""Sizes that a captured graph does not hold for are refused, those it holds for give what the model gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import qcascade
from qcascade.capture import capture
from qcascade.capture.graph import CapturedModel, SizeRule
from qcascade.errors import ExecutionError
from qcascade.hybrid import HybridModule


class Blocks(nn.Module):
    """Asks for its length twice: it must be a multiple of 4, and above 6 it is scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, shift: Tensor) -> Tensor:
        x = self.embed(ids)
        batch, length, width = x.shape
        x = x.reshape(batch, length // 4, 4, width).mean(2)
        if length > 6:
            x = x * 2
        return self.head(x) + shift


class Padded(nn.Module):
    """Pads its length to a multiple of 8, in Python."""

    def forward(self, x: Tensor) -> Tensor:
        if missing := -x.shape[1] % 8:
            x = nn.functional.pad(x, (0, missing))
        return x.unflatten(1, (-1, 8)).amax(2)


class Odd(nn.Module):
    """Takes another branch where its length is 1 more than a multiple of 4."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if x.shape[1] % 4 == 1 else x


class Evaluates(nn.Module):
    """Takes another branch for short inputs in training mode only."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.training and x.shape[1] > 10 else x


@pytest.fixture(scope="module")
def blocks() -> tuple[Blocks, HybridModule]:
    model = Blocks().eval()
    example = torch.arange(24).reshape(3, 8), torch.randn(3, 1, 3)
    return model, qcascade.compile(model, example, kernels=[])


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 5), length=st.integers(2, 80))
def test_a_length_is_refused_or_gives_what_the_model_gives(
    blocks: tuple[Blocks, HybridModule], batch: int, length: int
) -> None:
    model, hybrid = blocks
    ids, shift = torch.randint(0, 50, (batch, length)), torch.randn(batch, 1, 3)
    if length % 4 or length <= 6:
        with pytest.raises(ExecutionError, match="dimension 1 must be at least 8 and a multiple of 4"):
            hybrid(ids, shift)
    else:
        torch.testing.assert_close(hybrid(ids, shift), model(ids, shift))


def test_padding_in_the_graph_follows_the_length() -> None:
    model = Padded()
    hybrid = qcascade.compile(model, torch.randn(2, 13), kernels=[])
    for length in (5, 13, 16, 21, 70):
        x = torch.randn(3, length)
        torch.testing.assert_close(hybrid(x), model(x))


def test_the_remainder_counts() -> None:
    model = Odd()
    hybrid = qcascade.compile(model, torch.randn(2, 13), kernels=[])
    x = torch.randn(3, 21)  # 1 more than a multiple of 4, as the example
    torch.testing.assert_close(hybrid(x), model(x))
    with pytest.raises(ExecutionError, match="dimension 1 must be at least 5 and 1 more than a multiple of 4"):
        hybrid(torch.randn(3, 16))


def test_both_modes_count() -> None:
    captured = capture(Evaluates(), torch.randn(2, 16))
    assert isinstance(captured, CapturedModel)
    assert captured.inputs[0].rules[1] == SizeRule(11)


def test_ordinary_models_have_no_rules() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    captured = capture(nn.Sequential(nn.Embedding(30, 16), layer, nn.Linear(16, 2)), torch.arange(18).reshape(2, 9))
    assert captured.record.notes == ()
    assert isinstance(captured, CapturedModel)
    assert captured.inputs[0].rules == ()


def test_a_bundle_keeps_the_rule(blocks: tuple[Blocks, HybridModule], tmp_path: object) -> None:
    model, hybrid = blocks
    bundle = qcascade.load(qcascade.export(hybrid, f"{tmp_path}/blocks.qcb"))
    ids, shift = torch.randint(0, 50, (3, 12)), torch.randn(3, 1, 3)
    (found,) = bundle(ids=ids, shift=shift).values()
    torch.testing.assert_close(torch.as_tensor(found), model(ids, shift), rtol=1e-4, atol=1e-5)
    for wrong in (bundle, bundle.to_torch()):
        with pytest.raises(ExecutionError, match="dimension 1 must be at least 8 and a multiple of 4"):
            wrong(ids=ids[:, :10], shift=shift)


@given(rule=st.builds(SizeRule, st.integers(2, 40), st.just(6), st.integers(0, 5)), size=st.integers(2, 100))
def test_the_following_size_is_the_next_accepted(rule: SizeRule, size: int) -> None:
    assert rule.following(size) == next(n for n in range(size, 200) if rule.accepts(n))


class Towers(nn.Module):
    """Images and texts, each its own batch; the mask belongs to the texts."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(6, 4), nn.Embedding(20, 4)

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        texts = (self.text(ids) * mask.unsqueeze(-1)).sum(1)
        return self.image(images) @ texts.T


def test_batches_that_differ_in_the_example_are_free_of_one_another() -> None:
    model = Towers()
    hybrid = qcascade.compile(model, (torch.randn(2, 6), torch.arange(15).reshape(3, 5), torch.ones(3, 5)), kernels=[])
    call = torch.randn(5, 6), torch.arange(20).reshape(4, 5), torch.ones(4, 5)
    torch.testing.assert_close(hybrid(*call), model(*call))
    with pytest.raises(ExecutionError, match="mask has a batch of 3 and ids one of 4; give one batch size"):
        hybrid(*call[:2], torch.ones(3, 5))
