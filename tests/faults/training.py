"""A small hybrid trained on SST-2 through a backend behind the cloud, in processes that may be killed at any moment."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from torch import Tensor, nn

import qcascade
from faults.cloud import Cloud, CloudAer, CloudSampler
from qcascade import Policy
from qcascade.executors import Executor, PytketExecutor, RuntimeExecutor
from qcascade.targets import Target

SHOTS = 40
_MODE = AerSimulator()  # without noise: with it a circuit takes 0.2 s, and truncated runs have circuits of their own
_TARGET = Target.from_qiskit(FakeManilaV2(), name="ibm_manila")
POLICY = Policy(deadline=4.0, retries=12, backoff=0.02, breaker=1000)


class Words(nn.Module):
    """Embedding, mean, head."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))


def sentences(folder: Path, count: int, length: int = 2) -> tuple[Tensor, Tensor, int]:
    """Word numbers [count, length], labels [count] and the size of the vocabulary."""
    lines = [line.rsplit("\t", 1) for line in (folder / "train.tsv").read_text().splitlines()[:count]]
    words = [text.split()[:length] for text, _ in lines]
    numbers = {word: place for place, word in enumerate(sorted({w for some in words for w in some}))}
    ids = torch.tensor([[numbers[w] for w in (some * length)[:length]] for some in words])
    return ids, torch.tensor([int(label) for _, label in lines]), len(numbers)


def hybrid_for(vocabulary: int, example: Tensor) -> Any:
    """RandomCircuitEmbedding and ReuploadingHead of two qubits."""
    torch.manual_seed(0)
    kernels = {
        "random_circuit_embedding": {"qubits": 2, "layers": 1, "rotations": 1},
        "reuploading_head": {"qubits": 2, "uploads": 1, "offsets": 1},
    }
    padded = max(vocabulary, 200)  # a smaller table would not be worth its circuits, and is refused
    hybrid = qcascade.compile(Words(padded), (example,), kernels=kernels).double()
    assert len(hybrid.kernels) == 2, str(hybrid.plan)
    return hybrid


def executor_for(kind: str, cloud: Cloud) -> Executor:
    """A real backend behind the cloud."""
    if kind == "pytket":
        backend = CloudAer(cloud)
        return PytketExecutor(backend, SHOTS, find=backend.find, most_circuits=40)
    made = RuntimeExecutor(_MODE, SHOTS, target=_TARGET, compile_seeds=1, most_circuits=40)
    made._service = made.sampler = CloudSampler(made.sampler, cloud)
    return made


def train(hybrid: Any, ids: Tensor, labels: Tensor, steps: int, batch: int) -> str:
    """Digest of the weights after so many steps of SGD."""
    optimiser = torch.optim.SGD(hybrid.parameters(), lr=0.3)
    hybrid.train()
    for step in range(steps):
        some = slice(step * batch % len(ids), step * batch % len(ids) + batch)
        optimiser.zero_grad()
        nn.functional.cross_entropy(hybrid(ids[some]), labels[some]).backward()
        optimiser.step()
    content = b"".join(p.detach().numpy().tobytes() for p in hybrid.parameters())
    return hashlib.sha256(content).hexdigest()


def in_process(work: Callable[[], str], folder: Path, kill_after: float | None) -> str | None:
    """What the work gives in a process of its own; None where it was killed (SIGKILL) before it ended."""
    answer = folder / "answer"
    answer.unlink(missing_ok=True)

    def child() -> None:
        torch.set_num_threads(1)
        partial = folder / "answer.partial"
        partial.write_text(work())
        partial.rename(answer)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
    process.join()
    if answer.exists():
        return answer.read_text()
    return None if process.exitcode == -9 else "gave up"  # the policy did: it can be run again


def run(
    kind: str, folder: Path, data: tuple[Tensor, Tensor, int], hybrid: Any, faults: Any, *, steps: int, batch: int,
    kills: int, chance: random.Random, longest: float, microbatches: int = 1, policy: Policy = POLICY,
) -> dict[str, Any]:  # fmt: skip
    """Train until the end through faults and kills, then once more against the journal, and audit the books."""
    ids, labels, _ = data
    journal = folder / f"{kind}-{chance.getrandbits(32):08x}.sqlite"
    cloud = folder / f"{kind}-cloud.sqlite"
    Cloud(cloud).forget_jobs()

    def work() -> str:
        hybrid.use(executor_for(kind, Cloud(cloud, faults)), journal=journal, policy=policy, microbatches=microbatches)
        return train(hybrid, ids, labels, steps, batch)

    started, killed, gave_up, weights = time.monotonic(), 0, 0, None
    while weights is None or weights == "gave up":
        weights = in_process(work, folder, chance.uniform(0.05, longest) if killed < kills else None)
        killed, gave_up = killed + (weights is None), gave_up + (weights == "gave up")
        if gave_up > 20:
            raise RuntimeError("the training gave up more than 20 times")
    seconds = time.monotonic() - started
    books = Cloud(cloud)
    bought = books.audit()
    again = in_process(work, folder, None)
    after = books.audit()
    states = [record.state for record in qcascade.dispatch.Journal(journal).records()]
    return {
        "kind": kind, "kills": killed, "gave_up": gave_up, "seconds": round(seconds, 2), **bought, "weights": weights,
        "same_again": again == weights, "bought_again": after["circuits"] - bought["circuits"],
        "journal": {state: states.count(state) for state in sorted(set(states))},
    }  # fmt: skip
