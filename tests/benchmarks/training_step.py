"""Time of a training step of the reference encoder, hybrid over classical, alternating in one run; peak memory of both.

    python tests/benchmarks/training_step.py [--lengths 512 1024 2048] [--batch 2] [--rounds 5] [--out results.jsonl]

The encoder has 6 layers, d = 1024, 16 heads, FFN 5120, vocabulary 30522 (121M parameters); classical attention is sdpa.
In the hybrid every attention and the token embedding are replaced. A step is forward, backward and AdamW. Memory is the
peak of a process of its own that makes two steps.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import qcascade

VOCABULARY, FEATURES, HEADS, HIDDEN, LAYERS = 30522, 1024, 16, 5120, 6
RATE = 1e-6  # larger steps on random labels saturate the loss, and products of denormal gradients take a minute


class Reference(nn.Module):
    """Embeddings, encoder layers (pre-norm, sdpa), mean, head."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, FEATURES)
        self.position = nn.Parameter(torch.randn(2048, FEATURES) * 0.02)
        layer = nn.TransformerEncoderLayer(
            FEATURES, HEADS, HIDDEN, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(FEATURES, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.token(ids) + self.position[: ids.shape[1]]).mean(1))


def build(kind: str, batch: int, length: int) -> nn.Module:
    """The classical model or its hybrid."""
    torch.manual_seed(0)
    model = Reference()
    if kind == "classical":
        return model
    kernels = {"amplitude_attention_pooling": {"max_length": length}, "random_circuit_embedding": {}}
    hybrid = qcascade.compile(model, torch.randint(0, VOCABULARY, (batch, length)), kernels=kernels)
    assert len(hybrid.kernels) == LAYERS + 1, str(hybrid.plan)
    return hybrid


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: int, length: int) -> float:
    """Seconds of one training step on fresh random tokens."""
    ids, labels = torch.randint(0, VOCABULARY, (batch, length)), torch.randint(0, 2, (batch,))
    start = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(model(ids), labels).backward()
    optimizer.step()
    return time.perf_counter() - start


def peak_memory(kind: str, batch: int, length: int) -> int:
    """Peak resident bytes of a process that trains for two steps; of it, what the steps added to the built model."""
    command = [sys.executable, __file__, "--memory", kind, "--batch", str(batch), "--lengths", str(length)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", choices=("classical", "hybrid"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        model = build(options.memory, options.batch, options.lengths[0])
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        for _ in range(2):
            step(model, optimizer, options.batch, options.lengths[0])
        status = Path("/proc/self/status").read_text()  # getrusage would count the parent's peak too
        print(1024 * int(status.split("VmHWM:")[1].split()[0]))
        return
    for length in options.lengths:
        models = {kind: build(kind, options.batch, length) for kind in ("classical", "hybrid")}
        optimizers = {kind: torch.optim.AdamW(model.parameters(), lr=RATE) for kind, model in models.items()}
        seconds: dict[str, list[float]] = {"classical": [], "hybrid": []}
        for _ in range(options.rounds + 1):
            for kind, model in models.items():
                seconds[kind].append(step(model, optimizers[kind], options.batch, length))
        times = {kind: s[1:] for kind, s in seconds.items()}  # the first round warms up
        ratio = median(h / c for h, c in zip(times["hybrid"], times["classical"], strict=True))
        parameters = {kind: sum(p.numel() for p in model.parameters()) for kind, model in models.items()}
        del models, optimizers
        memory = {kind: peak_memory(kind, options.batch, length) for kind in times}
        record = {
            "command": shlex.join(["python", *sys.argv]),
            "length": length,
            "batch": options.batch,
            "threads": options.threads,
            "classical_seconds": round(median(times["classical"]), 3),
            "hybrid_seconds": round(median(times["hybrid"]), 3),
            "ratio": round(ratio, 3),
            "ratios": [round(h / c, 3) for h, c in zip(times["hybrid"], times["classical"], strict=True)],
            "parameters": parameters,
            "peak_bytes": memory,
            "torch": torch.__version__,
        }
        print(json.dumps(record), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
