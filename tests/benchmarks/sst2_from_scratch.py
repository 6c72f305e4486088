"""Train a six-layer encoder from scratch on SST-2: softmax attention or pooling, table or circuit embedding.

    python tests/benchmarks/sst2_from_scratch.py --data DIR --attention pooling --seed 0 --out results.jsonl

DIR holds train.tsv, dev.tsv and test.tsv of ``text<TAB>label``. One line of JSON a run is appended to --out: the
command, every setting, accuracy on dev after every epoch, and on dev and test after the last.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.kernels import AmplitudeAttentionPooling, RandomCircuitEmbedding


class SoftmaxAttention(nn.Module):
    """Multi-head attention by sdpa."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(features, 3 * features), nn.Linear(features, features)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return self.output(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Pre-norm encoder layer."""

    def __init__(self, attention: nn.Module, features: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.dropout = attention, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.ffn = nn.Sequential(nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        return x + self.dropout(self.ffn(self.norm2(x)))


class Encoder(nn.Module):
    """Embeddings, layers, masked mean, linear head."""

    def __init__(self, vocabulary: int, options: argparse.Namespace) -> None:
        super().__init__()
        d, heads = options.features, options.heads
        if options.embedding == "table":
            self.token: nn.Module = nn.Embedding(vocabulary, d, padding_idx=0)
            nn.init.normal_(self.token.weight, std=options.table_std)
        else:
            self.token = RandomCircuitEmbedding(
                vocabulary, d, qubits=options.qubits, layers=options.circuit_layers, spread=options.spread, angle_noise=options.angle_noise,
                padding_index=0, seed=options.seed,
            )  # fmt: skip
        self.position = nn.Parameter(torch.randn(options.length, d) * 0.02)
        self.norm, self.dropout = nn.LayerNorm(d), nn.Dropout(options.dropout)
        self.layers = nn.ModuleList(
            Layer(
                SoftmaxAttention(d, heads)
                if options.attention == "softmax"
                else AmplitudeAttentionPooling(
                    d,
                    heads,
                    options.length,
                    slots=options.slots,
                    layers=options.mixer_layers,
                    local_width=options.local,
                ),
                d,
                options.dropout,
            )
            for _ in range(6)
        )
        self.last, self.head = nn.LayerNorm(d), nn.Linear(d, 2)

    def forward(self, ids: Tensor) -> Tensor:
        mask = ids != 0
        x = self.dropout(self.norm(self.token(ids) + self.position[: ids.shape[1]]))
        for layer in self.layers:
            x = layer(x, mask)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return self.head((self.last(x) * weight).sum(1) / weight.sum(1).clamp_min(1))


def read(path: Path) -> tuple[list[list[str]], Tensor]:
    """Tokens and labels of a file of ``text<TAB>label``."""
    rows = [line.rsplit("\t", 1) for line in path.read_text().splitlines()]
    return [text.split() for text, _ in rows], torch.tensor([int(label) for _, label in rows])


def batches(texts: list[list[int]], size: int, generator: torch.Generator | None) -> list[Tensor]:
    """Index batches of like lengths; shuffled where a generator is given."""
    lengths = torch.tensor([len(t) for t in texts], dtype=torch.float)
    if generator is not None:
        lengths += 3 * torch.rand(len(texts), generator=generator)
    groups = list(lengths.argsort().split(size))
    if generator is not None:
        groups = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    return groups


def padded(texts: list[list[int]], index: Tensor) -> Tensor:
    """Ids [B, longest]."""
    return nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in index.tolist()], batch_first=True)


@torch.no_grad()
def accuracy(model: nn.Module, texts: list[list[int]], labels: Tensor) -> float:
    """Per cent right."""
    model.eval()
    right = sum(int((model(padded(texts, i)).argmax(-1) == labels[i]).sum()) for i in batches(texts, 128, None))
    model.train()
    return 100 * right / len(texts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--attention", choices=("softmax", "pooling"), default="softmax")
    parser.add_argument("--embedding", choices=("table", "circuit"), default="table")
    for name, default in (
        ("features", 128), ("heads", 4), ("length", 32), ("slots", 4), ("mixer-layers", 2), ("local", 0), ("qubits", 8),
        ("circuit-layers", 4), ("epochs", 6), ("batch", 32), ("seed", 0), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (
        ("lr", 5e-4), ("angle-lr", 1.0), ("angle-decay", 0.0), ("spread", 0.5), ("angle-noise", 0.0),
         ("dropout", 0.1), ("table-std", 0.02), ("decay", 0.01), ("word-dropout", 0.0),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=float, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    splits = {name: read(options.data / f"{name}.tsv") for name in ("train", "dev", "test")}
    counts = Counter(word for text in splits["train"][0] for word in text)
    words = {word: i + 2 for i, (word, _) in enumerate(counts.most_common())}  # 0 pads, 1 is unknown
    coded = {k: [[words.get(w, 1) for w in t][: options.length] for t in texts] for k, (texts, _) in splits.items()}
    labels = {k: v for k, (_, v) in splits.items()}

    model = Encoder(len(words) + 2, options)
    angles = [p for n, p in model.named_parameters() if n == "token.angles"]
    others = [p for n, p in model.named_parameters() if n != "token.angles"]
    groups = [{"params": others, "weight_decay": options.decay}]
    if angles:
        groups.append({"params": angles, "lr": options.lr * options.angle_lr, "weight_decay": options.angle_decay})
    optimizer = torch.optim.AdamW(groups, lr=options.lr)
    generator = torch.Generator().manual_seed(options.seed)
    total = options.epochs * math.ceil(len(coded["train"]) / options.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.1 * total)) * max(0.0, 1 - step / total)
    )
    curve, losses, start = [], [], time.perf_counter()
    for _ in range(options.epochs):
        running = 0.0
        groups_ = batches(coded["train"], options.batch, generator)
        for index in groups_:
            ids = padded(coded["train"], index)
            if options.word_dropout:
                ids = ids.masked_fill((torch.rand(ids.shape) < options.word_dropout) & (ids != 0), 1)
            loss = F.cross_entropy(model(ids), labels["train"][index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            running += loss.item()
        losses.append(round(running / len(groups_), 4))
        curve.append(round(accuracy(model, coded["dev"], labels["dev"]), 2))
        print(options.attention, options.embedding, options.seed, losses[-1], curve[-1], flush=True)
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "settings": {k: v for k, v in vars(options).items() if k not in ("data", "out")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_loss": losses,
        "dev_by_epoch": curve,
        "dev": curve[-1],
        "test": round(accuracy(model, coded["test"], labels["test"]), 2),
        "seconds": round(time.perf_counter() - start, 1),
        "torch": torch.__version__,
    }
    with options.out.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
