"""Shared by all tests: one thread each (they run in parallel), a machine profile of the session's own, small real models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["QCASCADE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def sst2() -> Path:
    folder = Path(__file__).parents[1] / ".." / "shared" / "data" / "sst2"
    if not folder.is_dir():
        pytest.skip("the shared SST-2 files are not beside the checkout")
    return folder


def bert(**options: object) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**_small(options)))


def roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return RobertaForSequenceClassification(RobertaConfig(**_small({})))


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, vocab_size=99, initializer_range=0.2)
    )


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    options = {k: v for k, v in _small({}).items() if k != "vocab_size"}
    return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **options))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=99, bos_token_id=0, eos_token_id=0))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_small({"num_key_value_heads": 1})))


def _small(options: dict[str, object]) -> dict[str, object]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 99,
        "initializer_range": 0.2,
        **options,
    }


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "bert": bert,
    "bert written out": lambda: bert(attn_implementation="eager"),
    "roberta": roberta,
    "distilbert": distilbert,
    "vit": vit,
}


def text_inputs(batch: int = 3, length: int = 11) -> dict[str, torch.Tensor]:
    """Ids and a mask that masks something."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1, length // 2 :] = 0
    return {"input_ids": torch.randint(2, 99, (batch, length)), "attention_mask": mask}
