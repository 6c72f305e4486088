"""Bytes of a training step's circuits and results on the wire, against QASM texts out and bit-strings back; encoding speed.

    python tests/benchmarks/wire.py [--batch 8] [--shots 1024] [--rounds 15] [--out FILE]

The traffic is the kernels' own: forward and backward pass (shift rules) of each, native gates as for an AerBackend, counts
drawn from the exact state. The plain way is an OpenQASM 2 text for every bound circuit (its mean length over at most 50
circuits a task) and a line of 0s and 1s for every shot. "share" is of those bytes, `share_of_binary` of the same
content in binary without a format (8 bytes an angle; a packed bit a read qubit and shot).

Is encoding faster than sending at 100 MB/s? That depends on which bytes would be sent. `encoding_over_sending_plain` and
`encoding_over_sending_binary` hold the time to encode against the time that the plain way's bytes, or the binary content, would
take; below 1, encoding is faster, and `megabytes_a_second` is the binary content encoded a second.
`encoding_over_sending_encoded` holds it against the encoded bytes themselves, the stricter reading. Seconds to encode are the
processor's, median of `rounds`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from pytket.extensions.qiskit import AerBackend
from pytket.qasm import circuit_to_qasm_str

from qcascade.dispatch.simulate import simulated
from qcascade.dispatch.wire import Block, decode_angles, decode_counts, encode_angles, encode_circuit, encode_counts
from qcascade.executors import PytketExecutor
from qcascade.executors.base import Log, Task, Values
from qcascade.kernels import AmplitudeAdapter, AmplitudeAttentionPooling, RandomCircuitEmbedding, ReuploadingHead


class Recorder(PytketExecutor):
    """Keeps what it would have submitted; samples come from the exact state."""

    def counted(self, tasks: list[Task], shots: int, log: Log) -> list[Values]:
        seeds = [[np.random.default_rng(row).bytes(16) for row in range(len(task.angles))] for task in tasks]
        found = [simulated(task, shots, some) for task, some in zip(tasks, seeds, strict=True)]
        self.traffic.append((tasks, found))
        return found


def kernels(batch: int) -> dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    """Kernels of small but usual sizes, and their inputs."""
    x, words = torch.randn(batch, 32), torch.randn(batch, 8, 32)
    return {
        "random_circuit_embedding": (
            RandomCircuitEmbedding(500, 32, qubits=6, layers=2),
            (torch.randint(0, 500, (batch, 4)),),
        ),
        "reuploading_head": (ReuploadingHead(32, 2, qubits=6), (x,)),
        "amplitude_attention_pooling": (AmplitudeAttentionPooling(32, heads=2, max_length=8), (words,)),
        "amplitude_adapter": (AmplitudeAdapter(32, 32), (x, x)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("batch", 8), ("shots", 1024), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    lines = []
    for name, (kernel, x) in kernels(options.batch).items():
        executor = Recorder(AerBackend(), options.shots, seed=0)
        executor.traffic = []
        kernel.use(executor)
        kernel.train()(*x).square().sum().backward()
        known: set[bytes] = set()
        plain_out = plain_back = first = out = back = circuits = raw = 0
        seconds = 0.0
        for tasks, found in executor.traffic:
            for task in tasks:
                rows = task.angles[:: max(1, len(task.angles) // 50)]
                texts = [len(circuit_to_qasm_str(task.circuit.bound(row))) for row in rows]
                plain_out += round(float(np.mean(texts)) * len(task.angles))
                plain_back += len(task.angles) * options.shots * (task.bits + 1)
                circuits += len(task.angles)
                raw += task.angles.nbytes + len(task.angles) * options.shots * task.bits // 8
                if task.digest not in known:
                    known.add(task.digest)
                    first += len(encode_circuit(task.digest, json.dumps(task.circuit.symbolic().to_dict())))
            blocks, times = [Block(task.digest, task.angles) for task in tasks], []
            for _ in range(options.rounds):
                start = time.thread_time()  # of the processor: the clock's says more of others on a busy machine
                sent, returned = encode_angles(blocks), encode_counts(found)
                times.append(time.thread_time() - start)
            assert all(np.array_equal(b.angles, t.angles) for b, t in zip(decode_angles(sent), tasks, strict=True))
            assert all(map(np.array_equal, decode_counts(returned), found))
            out, back, seconds = out + len(sent), back + len(returned), seconds + median(times)
        line = {
            "kernel": name, "circuits": circuits, "plain_out": plain_out, "plain_back": plain_back,
            "templates_once": first, "out": out, "back": back,
            "share": round((first + out + back) / (plain_out + plain_back), 5),
            "share_out": round((first + out) / plain_out, 5), "share_back": round(back / plain_back, 5),
            "share_of_binary": round((first + out + back) / raw, 5),
            "megabytes_a_second": round(raw / seconds / 1e6, 1),
            "encoding_over_sending_plain": round(seconds / ((plain_out + plain_back) / 1e8), 4),
            "encoding_over_sending_binary": round(seconds / (raw / 1e8), 4),
            "encoding_over_sending_encoded": round(seconds / ((out + back) / 1e8), 2),
        }  # fmt: skip
        lines.append(json.dumps(line))
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
