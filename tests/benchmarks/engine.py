"""Time, memory and agreement of the engine beside other simulators, on one re-uploading layer with its gradients.

    python tests/benchmarks/engine.py [--cases 4 8 10 12 16] [--forward 16 20] [--threads 1 4] [--candidates NAME …]
                                      [--rounds 5] [--out results.jsonl]
    python tests/benchmarks/engine.py --scaling [--plot scaling.png] [--threads 4] [--out scaling.jsonl]

The circuit and how each candidate computes it are in `engine_peers.py`. `--forward` cases are without gradients, beside Aer.

How it is measured: every (candidate, case, threads) is a process of its own, bound to that many cores. The processes of a
case start one after another, each makes its first call and then waits; in each round they take turns, one at a time, for
about `--seconds` of steps, so that a drift of the machine meets all alike. Reported are:

- median and minimum of all steps, in wall time, and processor time per step (all threads);
- first call: seconds from the imported package to the first result, building and compiling included. QCascade is started
  once before, so that its kernels are in the disk's cache; loading them from there is in its first call;
- memory: the peak of resident memory in all steps less what was resident before the first, when everything had been
  compiled and loaded, what torch itself imports at the first `torch.autograd.grad` and what the benchmark needs to look up
  versions and save arrays included, for every candidate alike; and the peak of the whole process, imports and compilation
  included (`total`);
- deviation: the largest of outputs and gradients from the median over all candidates, over the largest value.

A candidate that fails or exceeds `--limit` seconds a step is a line with its reason. Other load on the machine spoils the
figures on all cores above all, and is recorded with them (`load`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import engine_peers as peers
import numpy as np
from engine_peers import CANDIDATES, Case

BATCHES = {4: 32, 8: 64, 10: 64, 12: 32, 16: 16}
FORWARD_BATCHES = {16: 16, 20: 4}
OURS = "qcascade"
TOLERANCE = 1e-3
PAUSE = 0.3  # seconds between two processes' turns: OpenMP threads of the last may still spin


# The process of one candidate


def memory(key: str) -> int:
    """Bytes of VmRSS (resident now) or VmHWM (its peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def reset_peak() -> None:
    """Let VmHWM start again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def bookkeeping(name: str, results: Path) -> dict[str, str]:
    """Versions of a candidate's packages, once everything has been used that would otherwise be loaded within the steps.

    np.savez and importlib.metadata are the benchmark's, not a candidate's; `torch.autograd.grad` with cotangents imports
    torch.fx.experimental, 1 to 2 MB, at its first call in a process.
    """
    import torch

    x = torch.zeros(1, requires_grad=True)
    torch.autograd.grad(x * 2, x, torch.ones(1))
    np.savez(results, nothing=np.zeros(0))
    return {package: importlib.metadata.version(package) for package in CANDIDATES[name].packages}


def as_numpy(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if hasattr(value, "detach") else value, dtype=np.float64)


def child(name: str, case: Case, threads: int, seconds: float, results: Path) -> None:
    """Make the first call, then answer every line "go" on stdin with the times of some steps, and "end" with the memory."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages print goes to stderr; the channel is ours

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=channel, flush=True)

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    import torch

    torch.set_num_threads(threads)
    start = time.perf_counter()
    peers.load(name)
    loaded = time.perf_counter()
    step = CANDIDATES[name].prepare(case, threads)
    prepared_at = time.perf_counter()
    versions = bookkeeping(name, results)
    before, prepared = memory("VmRSS"), memory("VmHWM")
    reset_peak()  # VmHWM is the peak of the steps from here on
    called = time.perf_counter()
    values = step()
    done = time.perf_counter()
    arrays = {k: as_numpy(v) for k, v in zip(("outputs", "grad_x", "grad_w"), values, strict=True) if v is not None}
    np.savez(results, **arrays)
    build = prepared_at - loaded
    say({"import_s": loaded - start, "build_s": build, "first_step_s": done - called, "versions": versions})
    last_peak = memory("VmHWM")
    for line in sys.stdin:
        if line.strip() != "go":
            break
        took, cpu = time.perf_counter(), time.process_time()
        step()  # warms the caches that another process has filled; it counts only where a step is long
        took, cpu = time.perf_counter() - took, time.process_time() - cpu
        count = max(3, int(seconds / took)) if took < seconds else 0
        walls = np.zeros(count)  # eight bytes a step: more steps shall not count as more memory
        busy = time.process_time()
        for number in range(count):
            start = time.perf_counter()
            step()
            walls[number] = time.perf_counter() - start
        busy = time.process_time() - busy
        last_peak = memory("VmHWM")
        say({"walls": walls.tolist() or [took], "cpu_s": busy / count if count else cpu})
    say({"memory": last_peak - before, "memory_total": max(prepared, last_peak)})


# The process that compares


@dataclass
class Run:
    """A candidate in a case: its process while it runs, and its figures."""

    name: str
    case: Case
    threads: int
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    absent: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def seconds(self) -> float:
        return median(self.walls) if self.walls else float("nan")

    @property
    def first_call(self) -> float:
        return float(self.facts["build_s"] + self.facts["first_step_s"])

    def line(self) -> dict[str, Any]:
        """The figures as a line of the results."""
        head = {"candidate": self.name, **asdict(self.case), "threads": self.threads}
        if self.absent:
            return {**head, "absent": self.absent}
        times = {
            "median_s": self.seconds,
            "min_s": min(self.walls),
            "cpu_s": median(self.cpus),
            "steps": len(self.walls),
        }
        return {**head, **times, "first_call_s": self.first_call, **self.facts}


class Group:
    """The processes of one case and number of threads."""

    def __init__(self, names: Sequence[str], case: Case, threads: int, options: argparse.Namespace) -> None:
        self.options, self.folder = options, Path(tempfile.mkdtemp(prefix="engine-benchmark-"))
        self.runs = [Run(name, case, threads) for name in names]

    def measure(self, warm: bool = True) -> list[Run]:
        """Start all, go round, end all. Warm: start ours once before, which fills the disk's cache of compiled kernels."""
        for run in self.runs:
            if run.name == OURS and warm:
                self.start(run)
                self.end(run)
                run.walls, run.absent = [], ""
            self.start(run)
        for _ in range(self.options.rounds):
            for run in self.present():
                run.facts["load"] = os.getloadavg()[0]
                if answer := self.ask(run, "go", self.options.limit + 10 * self.options.seconds):
                    run.walls += answer["walls"]
                    run.cpus.append(answer["cpu_s"])
                    if min(answer["walls"]) > self.options.limit:
                        run.absent = f"a step takes {min(answer['walls']):.1f} s, more than {self.options.limit:g} s"
                time.sleep(PAUSE)
        for run in self.runs:
            self.end(run)
        self.compare()
        shutil.rmtree(self.folder)
        return self.runs

    def present(self) -> Iterator[Run]:
        return (run for run in self.runs if not run.absent)

    def start(self, run: Run) -> None:
        """Start a process and wait for its first call."""
        cores = str(run.threads)
        environment = {f"{library}_NUM_THREADS": cores for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        # Threads that spin at a barrier are starved for seconds by any other load, and would burn the others' turns.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        if run.threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        command = [
            sys.executable,
            __file__,
            "--child",
            run.name,
            "--threads",
            cores,
            "--results",
            str(self.results(run)),
        ]
        command += ["--case", json.dumps(asdict(run.case)), "--seconds", str(self.options.seconds)]
        with self.log(run).open("w") as log:
            run.process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        run.facts.update(self.ask(run, "", self.options.first_limit) or {})

    def ask(self, run: Run, message: str, limit: float) -> dict[str, Any] | None:
        """Send a line (if any) and read the answer; a process that gives none in time is ended, and the run absent."""
        assert run.process and run.process.stdin and run.process.stdout
        with contextlib.suppress(BrokenPipeError):
            run.process.stdin.write(f"{message}\n".encode() if message else b"")
            run.process.stdin.flush()
        ready, _, _ = select.select([run.process.stdout], [], [], limit)
        answer = run.process.stdout.readline() if ready else b""
        if answer:
            return dict(json.loads(answer))
        run.process.kill()
        last = (self.log(run).read_text().strip().splitlines() or ["no message"])[-1]
        what = "step" if message else "first call"
        run.absent = f"{what} failed: {last[:200]}" if ready else f"{what} took more than {limit:.0f} s"
        return None

    def end(self, run: Run) -> None:
        assert run.process
        if run.absent:
            run.process.kill()
        else:
            run.facts.update(self.ask(run, "end", self.options.limit) or {})
        run.process.wait()

    def compare(self) -> None:
        """Deviation of every run from the elementwise median of all."""
        arrays = {run.name: dict(np.load(self.results(run))) for run in self.present()}
        for run in self.present():
            run.facts["deviation"] = {}
            for key, mine in arrays[run.name].items():
                middle = np.median([other[key] for other in arrays.values()], axis=0)
                run.facts["deviation"][key] = float(np.abs(mine - middle).max() / np.abs(middle).max())

    def results(self, run: Run) -> Path:
        return self.folder / f"{run.name}.npz"

    def log(self, run: Run) -> Path:
        return self.folder / f"{run.name}.log"


# What is said of the figures


def deviation(run: Run) -> float:
    return max(run.facts["deviation"].values())


def verdicts(runs: Sequence[Run]) -> list[tuple[str, bool]]:
    """The figures asked of the engine in one case, and whether it reached them."""
    ours = next((run for run in runs if run.name == OURS and not run.absent), None)
    others = {run.name: run for run in runs if run.name != OURS and not run.absent}
    if ours is None or not others:
        return []
    held = [
        (f"deviation {deviation(run):.0e} of {run.name}", deviation(run) <= TOLERANCE)
        for run in (ours, *others.values())
    ]
    held = [(what, ok) for what, ok in held if not ok]
    name, fastest = min(((name, run.seconds) for name, run in others.items()), key=lambda item: item[1])
    ratio = fastest / ours.seconds
    if not ours.case.gradients:
        return [*held, (f"faster than {name}: {ratio:.1f}", ratio > 1)]
    needed = 2 if ours.case.qubits < 8 else 3 if ours.threads == 1 else 5
    held.append((f"fastest peer ({name}) over ours {ratio:.1f} ≥ {needed}", ratio >= needed))
    for name, run in others.items():
        if name.startswith("pennylane"):
            ratio = run.seconds / ours.seconds
            held.append((f"{name} over ours {ratio:.0f} ≥ 20", ratio >= 20))
    held.append((f"first call {ours.first_call:.2f} s < 2 s", ours.first_call < 2))
    name, least = min(((name, run.facts["memory"]) for name, run in others.items()), key=lambda item: item[1])
    mine = ours.facts["memory"]
    held.append((f"memory {mine / 1e6:.1f} MB ≤ {least / 1e6:.1f} MB ({name})", mine <= least))
    return held


def table(runs: Sequence[Run]) -> str:
    """One case as text, fastest first, with the verdicts."""
    case, threads = runs[0].case, runs[0].threads
    peers_seconds = [run.seconds for run in runs if run.name != OURS and not run.absent]
    fastest = min(peers_seconds, default=float("nan"))
    kind = "forward and gradients" if case.gradients else "forward"
    lines = [
        f"\n{case.qubits} qubits, batch {case.batch}, {case.layers} layers, {kind}, {threads} thread{'s'[: threads > 1]}",
        f"{'':22} {'median ms':>10} {'min ms':>10} {'cpu ms':>10} {'over peer':>10} {'first s':>8} "
        f"{'MB':>8} {'total MB':>9} {'deviation':>10}",
    ]
    for run in sorted(runs, key=lambda run: (bool(run.absent), run.seconds)):
        if run.absent:
            lines.append(f"{run.name:22} absent: {run.absent}")
            continue
        lines.append(
            f"{run.name:22} {run.seconds * 1e3:10.2f} {min(run.walls) * 1e3:10.2f} {median(run.cpus) * 1e3:10.2f} "
            f"{run.seconds / fastest:10.2f} {run.first_call:8.2f} {run.facts['memory'] / 1e6:8.1f} "
            f"{run.facts['memory_total'] / 1e6:9.1f} {deviation(run):10.1e}"
        )
    lines += [f"  {'pass' if ok else 'FAIL'}  {what}" for what, ok in verdicts(runs)]
    return "\n".join(lines)


def write(path: Path | None, runs: Sequence[Run], **more: Any) -> None:
    """Append one line a run: its figures, the command and the machine."""
    if path is None:
        return
    python = {
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "numpy": np.__version__,
    }
    models = {
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    }
    machine = {"cpu": ", ".join(sorted(models)) or platform.machine(), "cores": len(os.sched_getaffinity(0)), **python}
    command = "python " + shlex.join(["tests/benchmarks/engine.py", *sys.argv[1:]])
    with path.open("a") as file:
        for run in runs:
            held = {"verdicts": [{"what": w, "pass": ok} for w, ok in verdicts(runs)]} if run.name == OURS else {}
            print(json.dumps({**run.line(), **held, **more, "machine": machine, "command": command}), file=file)


# Ours alone, over sizes


def scaling(options: argparse.Namespace) -> None:
    """Time of a step over qubits, layers, batch and threads, from a base of 10 qubits, 3 layers and batch 64."""
    most = max(options.threads)
    sweeps: dict[str, list[tuple[int, Case, list[int]]]] = {
        "qubits (batch 16)": [(q, Case(q, 16), [1, most]) for q in range(2, 21, 2)],
        "layers": [(n, Case(10, 64, n), [1, most]) for n in (1, 2, 4, 8, 16)],
        "batch": [(2**k, Case(10, 2**k), [1, most]) for k in range(10)],
        "threads": [(t, Case(q, BATCHES[q]), [t]) for q in (10, 16) for t in range(1, most + 1)],
    }
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for axis, points in sweeps.items():
        for value, case, counts in points:
            for threads in sorted(set(counts)):
                runs = Group([OURS], case, threads, options).measure(warm=not curves)
                write(options.out, runs, axis=axis, value=value)
                label = f"{case.qubits} qubits" if axis == "threads" else f"{threads} thread{'s'[: threads > 1]}"
                curves.setdefault(axis, {}).setdefault(label, []).append((value, runs[0].seconds))
                said = runs[0].absent or f"{runs[0].seconds * 1e3:.2f} ms"
                print(f"{axis} = {value}, {threads} threads: {said}", flush=True)
    if options.plot:
        plot(curves, options.plot)


def plot(curves: dict[str, dict[str, list[tuple[int, float]]]], path: Path) -> None:
    """Four panels, one for each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import ScalarFormatter

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 7), constrained_layout=True)
    for panel, (axis, lines) in zip(panels.flat, curves.items(), strict=True):
        for label, points in lines.items():
            panel.plot([p[0] for p in points], [p[1] * 1e3 for p in points], marker="o", markersize=4, label=label)
        panel.set(xlabel=axis, ylabel="ms a step", yscale="log")
        if not axis.startswith("qubits"):
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.set_xticks([p[0] for p in next(iter(lines.values()))])
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle("Forward and gradients; otherwise 10 qubits, 3 layers, batch 64")
    figure.savefig(path, dpi=150)


def arguments() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", type=int, nargs="*", choices=BATCHES, default=list(BATCHES), help="qubits, with gradients"
    )
    parser.add_argument("--forward", type=int, nargs="*", choices=FORWARD_BATCHES, default=list(FORWARD_BATCHES))
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cores}))
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of steps in a turn (one step where a step is longer)"
    )
    parser.add_argument("--limit", type=float, default=60, help="seconds a step may take")
    parser.add_argument("--first-limit", type=float, default=400, help="seconds that import and first call may take")
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--plot", type=Path)
    for hidden in ("--child", "--case", "--results"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.child:
        case = Case(**json.loads(options.case))
        return child(options.child, case, options.threads[0], options.seconds, Path(options.results))
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"the machine is busy (load {load:.1f}): times on all cores above all will be wrong", file=sys.stderr)
    if options.scaling:
        return scaling(options)
    cases = [Case(q, BATCHES[q]) for q in options.cases] + [
        Case(q, FORWARD_BATCHES[q], gradients=False) for q in options.forward
    ]
    tables = []
    for case in cases:
        names = [
            n for n in options.candidates if (CANDIDATES[n].gradients if case.gradients else CANDIDATES[n].forward)
        ]
        for threads in options.threads:
            runs = Group(names, case, threads, options).measure()
            write(options.out, runs)
            tables.append(table(runs))
            print(tables[-1], flush=True)
    if len(tables) > 1:
        print("\n\n== All cases ==", *tables, sep="\n")
    return None


if __name__ == "__main__":
    main()
