"""Training through a backend behind a cloud with faults, killed at random moments: what was lost, and what bought twice.

    python tests/benchmarks/faults.py [--runs 50] [--steps 3] [--batch 2] [--kills 3] [--seed 0] [--out FILE]

Half of the runs go through pytket's AerBackend, half through SamplerV2 in local mode; both behind `tests/faults/cloud.py`,
whose latency is 50 to 500 ms a call. A run without faults or kills gives the weights to end with. Every fifth run truncates
shots, which changes the weights: there, as everywhere, training again against the journal has to end with the same weights
and buy nothing. A line a run: circuits bought, bought twice, jobs never fetched, weights as without faults.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

import torch

from qcascade import Policy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from faults.cloud import Faults  # noqa: E402
from faults.training import hybrid_for, run, sentences  # noqa: E402

PARTS = {"pytket": 1, "runtime": 2}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("runs", 50), ("steps", 3), ("batch", 2), ("kills", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--data", type=Path, default=ROOT / ".." / "shared" / "data" / "sst2")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = sentences(options.data, options.batch * options.steps)
    hybrid = hybrid_for(data[2], data[0][: options.batch])
    lines, wrong = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder, chance = Path(name), random.Random(options.seed)
        plain = {
            kind: run(kind, folder, data, hybrid, Faults(), steps=options.steps, batch=options.batch, kills=0,
                      chance=chance, longest=0, policy=Policy(deadline=600), microbatches=PARTS[kind])
            for kind in ("pytket", "runtime")
        }  # fmt: skip
        print({kind: found["seconds"] for kind, found in plain.items()}, flush=True)
        for number in range(options.runs):
            kind = ("pytket", "runtime")[number % 2]
            faults = Faults(
                0.1, 0.1, 0.1 if kind == "pytket" else 0.0, 0.1, 0.05, 0.2 if number % 5 == 4 else 0.0, (0.05, 0.5)
            )
            found = run(
                kind, folder, data, hybrid, faults, steps=options.steps, batch=options.batch, kills=options.kills,
                chance=chance, longest=plain[kind]["seconds"] + 3, microbatches=PARTS[kind],
            )  # fmt: skip
            found["same_weights"] = found.pop("weights") == plain[kind]["weights"]
            found = {"run": number, **found}
            fine = found["twice"] == found["unfetched"] == found["bought_again"] == 0 and found["same_again"]
            wrong += not (fine and (found["same_weights"] or found["truncated"] > 0))
            lines.append(json.dumps(found))
            print(lines[-1], flush=True)
            if options.out:
                options.out.write_text("\n".join(lines) + "\n")
    print(f"{options.runs} runs, {wrong} in which something was lost, bought twice or otherwise than without faults")


if __name__ == "__main__":
    main()
