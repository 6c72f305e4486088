"""One of the processes that torchrun starts: trains a hybrid under DDP on a Dask cluster, in one journal with the others.

Run: torchrun --nproc-per-node 2 tests/cluster_training.py SCHEDULER FOLDER. The first process then trains alone, on the same
parts of the data in turn, without the cluster, once with that journal and once with none, and writes FOLDER/report.json.
Samples are a function of seed and angles, so in float64 all weights must be the same bits.
"""

from __future__ import annotations

import copy
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed import Client
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import qcascade
from qcascade.hybrid import HybridModule

STEPS, SHOTS, TOKENS = 2, 40, 12
KERNELS = {
    "random_circuit_embedding": {"qubits": 2, "layers": 1, "rotations": 1},
    "reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1},
}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(256, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embed(ids))).mean(1))


def make() -> HybridModule:
    torch.manual_seed(0)
    hybrid = qcascade.compile(Words(), torch.zeros(2, 3, dtype=torch.long), kernels=KERNELS)
    assert set(hybrid.kernels) == {"embed", "head"}, str(hybrid.plan)
    return hybrid.double().train()


def data() -> tuple[Tensor, Tensor]:
    """Eight sentences of few words, so that the processes have words in common."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, TOKENS, (8, 3), generator=generator), torch.arange(8) % 2


def train(model: nn.Module, hybrid: HybridModule, parts: list[int], world: int) -> dict[str, Any]:
    """Losses are means over parts of every world-th row; those of one process are added up as DDP does."""
    ids, labels = data()
    optimizer = torch.optim.SGD(hybrid.parameters(), lr=0.3, momentum=0.9)
    runs = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        for part in parts:
            loss = cross_entropy(model(ids[part::world]), labels[part::world])
            (loss / len(parts)).backward()
            runs += hybrid.last_run
        optimizer.step()
    return {
        "circuits": sum(run.circuits for run in runs),
        "reused": sum(run.reused for run in runs),
        "submissions": sum(run.submissions for run in runs),
    }


def weights(hybrid: HybridModule) -> Tensor:
    return torch.cat([p.detach().flatten() for p in hybrid.parameters()])


def main(scheduler: str, folder: Path) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    journal = folder / "journal.sqlite"
    with Client(scheduler) as client:
        hybrid = make()
        again, alone = copy.deepcopy(hybrid), copy.deepcopy(hybrid)
        start = weights(hybrid)
        hybrid.use(qcascade.DaskExecutor(client, "shots", shots=SHOTS, seed=7), microbatches=2, journal=journal)
        counts = train(DistributedDataParallel(hybrid), hybrid, [rank], world)
    ended = [torch.empty_like(start) for _ in range(world)]
    dist.all_gather(ended, weights(hybrid))
    every: list[Any] = [None] * world
    dist.all_gather_object(every, counts)
    if rank:
        return
    database = sqlite3.connect(journal)
    states = dict(database.execute("SELECT state, count(*) FROM submissions GROUP BY state").fetchall())
    sent = database.execute("SELECT sum(circuits) FROM submissions").fetchone()[0]
    different = database.execute("SELECT count(*) FROM circuits").fetchone()[0]
    owners = database.execute("SELECT count(DISTINCT owner) FROM submissions").fetchone()[0]
    again.use("shots", shots=SHOTS, seed=7, journal=journal, microbatches=2)
    alone.use("shots", shots=SHOTS, seed=7, microbatches=2)
    replayed = train(again, again, list(range(world)), world)
    train(alone, alone, list(range(world)), world)
    report = {
        "ranks_equal": torch.equal(*ended),
        "replayed_equal": torch.equal(ended[0], weights(again)),
        "alone_equal": torch.equal(ended[0], weights(alone)),
        "difference": float((ended[0] - weights(alone)).abs().max()),
        "moved": float((ended[0] - start).abs().max()),
        "replayed": replayed,
        "ranks": every,
        "states": states,
        "sent": sent,
        "different": different,
        "owners": owners,
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    finally:
        dist.destroy_process_group()
