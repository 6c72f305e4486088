"""With nothing offloaded the hybrid is the model: keys, outputs, loss and every gradient, both modes, any size."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
import torch
from conftest import bert, gpt2, text_inputs
from torch import Tensor, nn

import qcascade


class TiedLanguageModel(nn.Module):
    """A layer called twice, and a table that is the output projection too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(99, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.3)
        self.norm = nn.BatchNorm1d(16)
        self.out = nn.Linear(16, 99, bias=False)
        self.out.weight = self.embed.weight
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        x = self.layer(self.layer(self.embed(input_ids)))
        logits = self.out(self.norm(x.transpose(1, 2)).transpose(1, 2))
        loss = logits.sum() if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"logits": logits, "loss": loss}


def _sentences(batch: int, length: int) -> dict[str, Any]:
    return {**text_inputs(batch, length), "labels": torch.randint(0, 2, (batch,))}


def _language(batch: int, length: int) -> dict[str, Any]:
    inputs = text_inputs(batch, length)
    return {**inputs, "labels": inputs["input_ids"]}


def _plain(batch: int, length: int) -> dict[str, Any]:
    ids = torch.randint(0, 99, (batch, length))
    return {"input_ids": ids, "labels": ids}


@pytest.fixture(scope="module", params=["classifier", "tied language model", "tied by hand"])
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, Any]:
    build, inputs = {
        "classifier": (partial(bert, num_hidden_layers=1), _sentences),
        "tied language model": (gpt2, _language),
        "tied by hand": (TiedLanguageModel, _plain),
    }[request.param]
    torch.manual_seed(0)
    model = build()
    return model, qcascade.compile(model, inputs(2, 8), kernels=[]), inputs


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("batch", "length"), [(2, 8), (3, 13), (4, 5), (8, 3)])
def test_outputs_loss_and_gradients(pair: Any, training: bool, batch: int, length: int) -> None:
    model, hybrid, inputs = pair
    if training and batch * length < 8:
        batch = 4  # batch-norm wants more
    given, results = inputs(batch, length), []
    constants = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    for module in (model, hybrid):
        module.train(training)
        torch.manual_seed(11)
        output = module(**given, **constants)
        output["loss"].backward()
        gradients = {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}
        module.zero_grad()
        results.append((output["logits"].detach(), output["loss"].detach(), gradients))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hybrid.state_dict(), model.state_dict())


def test_keys_parameters_and_ties(pair: Any) -> None:
    model, hybrid, _ = pair
    assert list(hybrid.state_dict()) == list(model.state_dict())
    assert [n for n, _ in hybrid.named_parameters()] == [n for n, _ in model.named_parameters()]
    hybrid.load_state_dict(model.state_dict())
    assert all(a is not b for a, b in zip(hybrid.parameters(), model.parameters(), strict=True))
