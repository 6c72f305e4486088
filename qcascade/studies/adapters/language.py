"""A small causal language model, trained from scratch on the reviews of one label and adapted to those of another: perplexity.

A Llama of transformers (its projections are nn.Linear), tied embeddings, its own vocabulary of words from the reviews it is
pretrained on; reviews are joined and cut into blocks of words. Pretraining is done once for a model and its data, and kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.errors import ExecutionError, first_line
from qcascade.studies.adapters.memory import training_bytes
from qcascade.studies.adapters.methods import Adapted, adapt
from qcascade.studies.adapters.runs import PARTS, AdapterRun, LanguageModel, texts_of
from qcascade.studies.adapters.sentences import curves_of
from qcascade.studies.records import key_of
from qcascade.studies.texts import Split, Vocabulary
from qcascade.studies.training import DivergedError, Protocol, Training, train

PROJECTIONS = ("q_proj", "v_proj")
_HEADS = 4
_LARGEST = 700.0  # mean loss; e to a little more is no finite number


class Logits(nn.Module):
    """Logits [B, n, words] of ids [B, n], by a causal language model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


class PrefixLogits(Logits):
    """The same for a prefix, which lies in the cache."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits
        return logits


def small_model(shape: LanguageModel) -> nn.Module:
    """The untrained model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model: nn.Module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.words + 2,
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=_HEADS,
            num_key_value_heads=_HEADS,
            max_position_embeddings=2 * shape.length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )
    return model


def measure(run: AdapterRun, data: Path, folder: Path, device: str = "cpu") -> Mapping[str, Any]:
    """Adapt what `pretrain` left in a folder, and score; what a record holds. Figures of test are written down and choose nothing."""
    assert run.language is not None
    blocks = read_blocks(data, run.digest, run.language)
    torch.manual_seed(run.seed)
    base = pretrained(folder, run.digest, run.language)
    start_test = perplexity(Logits(base.to(device)), blocks["test"], run.evaluated)
    model, adapted = language_model(run, base, blocks["train"][:2].to(device))
    model.to(device)
    start = time.perf_counter()
    training = (
        fit(
            model,
            adapted.groups,
            blocks["train"],
            blocks["dev"],
            run.steps,
            run.batch,
            run.rate,
            run.seed,
            run.evaluated,
            adapted.after_step,
        )
        if adapted.trained
        else Training((), ())
    )
    wall = time.perf_counter() - start
    curve = [epoch.scores["dev"] for epoch in training.epochs]
    return {
        "parameters": adapted.trained,
        "dev": curve[-1] if curve else perplexity(model, blocks["dev"], run.evaluated),
        "test": perplexity(model, blocks["test"], run.evaluated),
        "test_before": start_test,
        "dev_curve": curve,
        **(curves_of(training) if training.steps else {}),
        "memory": training_bytes(model, lambda: next_word_loss(model, blocks["train"][: run.batch])),
        "wall_seconds": round(wall, 1),
        "scored": [min(run.evaluated or 10**9, len(blocks[split])) for split in ("dev", "test")],
    }


def language_model(run: AdapterRun, base: nn.Module, ids: Tensor) -> tuple[nn.Module, Adapted]:
    """The base adapted by the run's method, giving logits; ids [B, n], where it lies, are an example."""
    if run.method == "amplitude":
        adapted = adapt(Logits(base), run.method, run.size, PROJECTIONS, {"input_ids": ids}, "")
        return adapted.model, adapted
    adapted = adapt(base, run.method, run.size, PROJECTIONS, {"input_ids": ids}, "CAUSAL_LM")
    wrapper = PrefixLogits if run.method == "prefix" else Logits
    return wrapper(adapted.model), adapted


def fit(
    model: nn.Module,
    groups: list[Mapping[str, Any]] | None,
    blocks: Tensor,
    dev: Tensor,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    evaluated: int,
    after_step: Callable[[], tuple[float, ...]] = tuple,
) -> Training:
    """The studies' loop on random blocks, in parts so that dev gives a curve; `steps` is a multiple of `PARTS`."""
    each = steps // PARTS

    def batches(generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(each):
            yield blocks[torch.randint(len(blocks), (batch,), generator=generator)]

    return train(
        model,
        batches,
        each,
        next_word_loss,
        Protocol(PARTS, batch, rate, seed=seed),
        evaluate=lambda model: {"dev": perplexity(model, dev, evaluated)},
        groups=groups,
        measure=after_step,
    )


def next_word_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean cross-entropy of every next word of blocks [B, n]."""
    ids = ids.to(next(model.parameters()).device)
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def perplexity(model: nn.Module, blocks: Tensor, most: int = 0, size: int = 32) -> float:
    """Exp of the mean loss of a next word, in evaluation mode, on the first blocks.

    Raises:
        DivergedError: It is not finite.
    """
    training = model.training
    model.eval()
    blocks = blocks[: most or None]
    total = sum(float(next_word_loss(model, part)) * len(part) for part in blocks.split(size))
    model.train(training)
    mean = total / len(blocks)
    if not mean < _LARGEST:  # nor is it a number
        raise DivergedError(f"the mean loss of a next word is {mean:g}; lower the learning rate.")
    return math.exp(mean)


def pretrain(data: Path, digest: str, folder: Path, shape: LanguageModel, device: str = "cpu") -> Path:
    """Train from scratch on the first label's reviews and keep the weights, unless they are there; one process at a time."""
    file = _file(folder, digest, shape)
    if not file.is_file():
        blocks = read_blocks(data, digest, shape)
        torch.manual_seed(0)
        model = small_model(shape)
        whole = Logits(model).to(device)
        fit(whole, None, blocks["pretrain"], blocks["pretrain_dev"], shape.steps, shape.batch, shape.rate, 0, 200)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        torch.save(model.cpu().state_dict(), partial)
        partial.replace(file)
    return file


def pretrained(folder: Path, digest: str, shape: LanguageModel) -> nn.Module:
    """The model that `pretrain` left.

    Raises:
        ExecutionError: Its file is missing or damaged.
    """
    file, model = _file(folder, digest, shape), small_model(shape)
    try:
        model.load_state_dict(torch.load(file, weights_only=True))
    except (
        OSError,
        RuntimeError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        UnpicklingError,
    ) as error:
        raise ExecutionError(
            f"{file} holds no pretrained weights ({first_line(error)}); delete it, and the command pretrains again."
        ) from error
    return model


@cache
def read_blocks(data: Path, digest: str, shape: LanguageModel) -> dict[str, Tensor]:
    """Blocks [N, length] of word numbers: "pretrain" and its dev of the first label; train, dev and test of the last.

    Raises:
        ExecutionError: The folder has one label only, too few words for a block, or other data than the digest's.
    """
    texts = texts_of(data, digest)
    if len(texts.classes) < 2:
        raise ExecutionError(f"{data} has one label; pretraining and adapting need texts of two.")
    first, last = texts.classes[0], texts.classes[-1]
    words = Vocabulary.of(_of(texts.train, first), shape.words)
    splits = {
        "pretrain": _of(texts.train, first),
        "pretrain_dev": _of(texts.dev, first),
        **{name: _of(getattr(texts, name), last) for name in ("train", "dev", "test")},
    }
    return {name: cut(words, found, shape.length, f"{data.name}, {name}") for name, found in splits.items()}


def cut(words: Vocabulary, texts: list[str], length: int, name: str) -> Tensor:
    """Texts joined and cut into blocks [N, length]; the rest is left out.

    Raises:
        ExecutionError: There are fewer words than one block.
    """
    numbers = torch.cat([words.encode([text])[0] for text in texts]) if texts else torch.empty(0).long()
    count = len(numbers) // length
    if not count:
        raise ExecutionError(
            f"{name}: {len(numbers)} words do not fill a block of {length}; give more text, or --length."
        )
    return numbers[: count * length].reshape(count, length)


def _of(split: Split, label: str) -> list[str]:
    return [text for text, found in zip(split.texts, split.labels, strict=True) if found == label]


def _file(folder: Path, digest: str, shape: LanguageModel) -> Path:
    return folder / f"language-{digest}-{key_of(shape)}.pt"
