"""Two gloo processes train the hybrid under DDP, then under FSDP2, save, resume, and compare.

Run: python tests/loops/processes.py FOLDER. The processes are forked once everything is imported and the hybrid compiled. The
first writes ddp.json and fsdp.json: losses, the largest difference to the same steps taken by one process on the whole batch,
and whether the resumed run's weights are bit for bit those of the uninterrupted one. Checkpoints are
torch.distributed.checkpoint's.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from task import data, make
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import start_processes
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from qcascade.hybrid import HybridModule

STEPS, PROCESSES = 8, 2


@cache
def made() -> HybridModule:
    return make(dropout=0.0)


def fresh() -> HybridModule:
    """The hybrid before any training."""
    return copy.deepcopy(made())


def ddp() -> nn.Module:
    return DistributedDataParallel(fresh())


def fsdp() -> nn.Module:
    hybrid = fresh()
    for kernel in hybrid.kernels.values():
        fully_shard(kernel)
    return fully_shard(hybrid)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, rank: int, world: int) -> list[float]:
    """Each process has every world-th row; losses are means over all."""
    ids, labels = data()
    losses = []
    for _ in range(steps):
        loss = cross_entropy(model(ids[rank::world]), labels[rank::world])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shared = loss.detach().clone()
        if world > 1:
            dist.all_reduce(shared)
        losses.append(shared.item() / world)
    return losses


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights, unsharded, under the hybrid's own names, on every process."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def save(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def load(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    weights, state = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)


def gradient_difference(wrapped: Callable[[], nn.Module], rank: int, world: int) -> float:
    """The largest of one step's gradients to those of one process on the whole batch."""
    ids, labels = data()
    model, alone = wrapped(), fresh()
    cross_entropy(model(ids[rank::world]), labels[rank::world]).backward()
    cross_entropy(alone(ids), labels).backward()
    found = {n.removeprefix("module."): p.grad for n, p in model.named_parameters()}
    return max(float((found[n] - p.grad).abs().max()) for n, p in alone.named_parameters())


def run(wrapped: Callable[[], nn.Module], out: Path) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    model = wrapped()
    optimizer = optimizer_of(model)
    losses = train(model, optimizer, STEPS // 2, rank, world)
    save(model, optimizer, out.with_suffix(".checkpoint"))
    half = {k: v.clone() for k, v in whole(model).items()}
    losses += train(model, optimizer, STEPS - STEPS // 2, rank, world)
    straight = whole(model)

    again = wrapped()
    optimizer = optimizer_of(again)
    load(again, optimizer, out.with_suffix(".checkpoint"))
    train(again, optimizer, STEPS - STEPS // 2, rank, world)
    resumed = whole(again)

    alone = fresh()
    alone_losses = train(alone, optimizer_of(alone), STEPS, 0, 1)
    names = {k.removeprefix("module."): v for k, v in straight.items()}
    report: dict[str, Any] = {
        "losses": losses,
        "alone": alone_losses,
        "names": sorted(names) == sorted(alone.state_dict()),
        "difference": max(float((names[k] - v).abs().max()) for k, v in alone.state_dict().items()),
        "gradients": gradient_difference(wrapped, rank, world) if wrapped is ddp else 0.0,  # FSDP's are in pieces
        "resumed": all(torch.equal(straight[k], resumed[k]) for k in straight),
        "moved": max(float((half[k] - v).abs().max()) for k, v in straight.items()),
        "kernels": len(alone.kernels),
    }
    if rank == 0:
        out.write_text(json.dumps(report))


def process(rank: int, folder: Path) -> None:
    meeting = (folder / "meeting").absolute().as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES)
    try:
        for wrapped in (ddp, fsdp):
            run(wrapped, folder / f"{wrapped.__name__}.json")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    made()
    start_processes(process, (Path(sys.argv[1]),), nprocs=PROCESSES, start_method="fork")
