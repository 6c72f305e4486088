"""Noisy simulation of the kernels' own circuits on 1, 2 and 4 Dask workers; with a worker killed; and what Dask costs.

    python tests/benchmarks/cluster.py [--workers 1 2 4] [--bindings 4000] [--rounds 5] [--shots 1024] [--out FILE]

Work of a round: the first `bindings` of a backward pass (shift rules) of a RandomCircuitEmbedding of 8 qubits, three
circuits each, and of a ReuploadingHead of 6 qubits, under ibm_torino's noise; a bound circuit takes half a millisecond.
Every round runs it on clusters of 1, 2, … workers one after the other, in alternating order; angles are new in every round. A
cluster is what `dask scheduler` and `dask worker --nworkers N --nthreads 1` start; the others' processes are stopped meanwhile,
since an idle worker takes 3 % of a core and an idle scheduler 8 %. "alone" is the inner executor in this process, on one thread,
in every round too.

With N workers, `efficiency` = t₁ / (N · t_N), against one worker, and `efficiency_alone` = t / (N · t_N), against the executor
alone; medians over rounds, `all` and `all_alone` hold every round's. `processor` is the processor's seconds that the executor alone
took, over those that all N workers together took (Dask's threads in them included): it does not change with what else the machine
does, and is what efficiency would be if division were even, nothing waited, and cores did not slow one another. `busy` is the share of
t_N · N that workers spent simulating, by their own clocks: 1 − busy is what division, transport and waiting cost, and what efficiency
loses beyond it is the cores' slowing down when all are at work. `calibration` is that slowing down: how many products of
matrices N processes at once made each, over how many one made alone, right after. It bounds what any division could reach on this
machine while it ran.

The last line kills a worker with SIGKILL a third into the work (Dask's nanny starts another): `equal` says whether all values
are the same bits as without, `ratio` is its time over that of the same work undisturbed, right before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from distributed import Client

from qcascade.dispatch import DispatchedExecutor
from qcascade.executors import DistributedExecutor, Executor, Job, NoisyExecutor
from qcascade.executors.sampled import _shifts
from qcascade.kernels import RandomCircuitEmbedding, ReuploadingHead


class Cluster:
    """A scheduler and workers, in processes that can be stopped together; ended at the end of a `with`.

    Args:
        workers: How many, of one thread each.
    """

    def __init__(self, workers: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "scheduler.json"
        common = ("--scheduler-file", str(file), "--no-dashboard")
        self._started = [self._start("scheduler", "--port", "0", *common)]
        while not file.exists():
            if self._started[0].poll() is not None:
                raise RuntimeError("the scheduler ended before it began; try `dask scheduler` by hand.")
            time.sleep(0.05)
        self._started.append(self._start("worker", "--nworkers", str(workers), "--nthreads", "1", *common))
        self.client = Client(scheduler_file=str(file))
        self.client.wait_for_workers(workers)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=self._folder.name, start_new_session=True)

    def tell(self, what: signal.Signals) -> None:
        """Send a signal to every process of it."""
        for process in self._started:
            os.killpg(process.pid, what)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.tell(signal.SIGCONT)
        self.client.close()
        self.tell(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._folder.cleanup()


def work(executor: Executor, bindings: int, seed: int) -> list[Job]:
    """Shifted angles of each template."""
    random = np.random.default_rng(seed)
    made = []
    for kernel in (RandomCircuitEmbedding(100, 16, qubits=8), ReuploadingHead(16, 2, qubits=6)):
        for template in kernel.templates().values():
            if template.amplitudes:
                continue  # the head's encoders, which load their input
            circuit = executor.prepare(template)
            width = len(circuit.angles.constants)
            angles = random.uniform(-np.pi, np.pi, (-(-bindings // (2 * width)), width))
            shifted = _shifts(executor, angles, np.arange(width))[0]
            made.append(Job(template, shifted[:bindings]))
    return made


def again(jobs: list[Job], seed: int) -> list[Job]:
    """The same circuits at other angles."""
    random = np.random.default_rng(seed)
    return [Job(job.template, job.angles + random.uniform(-1, 1, job.angles.shape)) for job in jobs]


def multiply(seconds: float) -> int:
    """How many products of matrices fit into so many seconds."""
    torch.set_num_threads(1)
    matrix, count, end = torch.eye(256), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        matrix = matrix @ matrix
        count += 1
    return count


def run(executor: DispatchedExecutor, jobs: list[Job]) -> tuple[float, list[np.ndarray]]:
    start = time.perf_counter()
    found = executor.run(jobs)
    return time.perf_counter() - start, [estimate.values for estimate in found]


def measured(clusters: dict[int, Cluster], options: argparse.Namespace) -> list[str]:
    """A line for each cluster and, where there are several workers, one for a worker killed; printed too."""
    first = NoisyExecutor("ibm_torino", options.shots, seed=0, compile_seeds=2)
    base = work(first, options.bindings, 0)
    clients = {count: cluster.client for count, cluster in clusters.items()}

    def tell_others(count: int, what: signal.Signals) -> None:
        for other, cluster in clusters.items():
            if other != count:
                cluster.tell(what)

    executors = {count: DistributedExecutor(client, first) for count, client in clients.items()}
    for turn in range(2):  # every worker imports, and builds its circuits
        for executor in (first, *executors.values()):
            DispatchedExecutor(executor).run(again(base, 1000 + turn))
    seconds: dict[int, list[float]] = {count: [] for count in clients}
    busy: dict[int, list[float]] = {count: [] for count in clients}
    calibration: dict[int, list[float]] = {count: [] for count in clients}
    worked: dict[int, list[float]] = {count: [] for count in clients}  # seconds of the processor
    alone: list[float] = []
    alone_worked: list[float] = []
    equal = True
    for turn in range(options.rounds):
        jobs = again(base, turn)
        values = {}
        for count in list(clients) if turn % 2 == 0 else list(clients)[::-1]:
            tell_others(count, signal.SIGSTOP)
            executors[count].busy, before = 0.0, sum(clients[count].run(time.process_time).values())
            took, values[count] = run(DispatchedExecutor(executors[count]), jobs)
            worked[count].append(sum(clients[count].run(time.process_time).values()) - before)
            seconds[count].append(took)
            busy[count].append(executors[count].busy / (took * count))
            products = clients[count].map(multiply, [0.5 + 1e-9 * k for k in range(count)], pure=False)
            calibration[count].append(sum(clients[count].gather(products)) / count)
            tell_others(count, signal.SIGCONT)
        before = time.process_time()
        took, values[0] = run(DispatchedExecutor(first), jobs)
        alone_worked.append(time.process_time() - before)
        alone.append(took)
        known = next(iter(values.values()))
        equal &= all(np.array_equal(a, b) for some in values.values() for a, b in zip(some, known, strict=True))
    least = min(options.workers)
    lines = []
    common = {
        "command": shlex.join(["python", *sys.argv]),
        "bindings": sum(len(job.angles) for job in base),
        "circuits": sum(len(job.angles) * first.circuits(job.template) for job in base),
        "shots": options.shots,
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "distributed": version("distributed"),
    }
    for count in options.workers:
        ratios = [least * one / (count * more) for one, more in zip(seconds[least], seconds[count], strict=True)]
        against = [one / (count * more) for one, more in zip(alone, seconds[count], strict=True)]
        possible = [more / one for one, more in zip(calibration[least], calibration[count], strict=True)]
        line = {
            "workers": count,
            "seconds": [round(s, 2) for s in seconds[count]],
            "efficiency": round(median(ratios), 3),
            "all": [round(r, 3) for r in ratios],
            "efficiency_alone": round(median(against), 3),
            "all_alone": [round(r, 3) for r in against],
            "processor": round(median(one / more for one, more in zip(alone_worked, worked[count], strict=True)), 3),
            "busy": round(median(busy[count]), 3),
            "calibration": round(median(possible), 3),
            "alone": [round(s, 2) for s in alone],
            "equal": equal,
            **common,
        }
        lines.append(json.dumps(line))
        print(lines[-1], flush=True)
    most = max(options.workers)
    if most > 1:
        client = clients[most]
        jobs = again(base, options.rounds)
        undisturbed, expected = run(DispatchedExecutor(executors[most]), jobs)
        victim = next(iter(client.run(os.getpid).values()))
        killer = threading.Timer(undisturbed / 3, os.kill, (victim, signal.SIGKILL))
        killer.start()
        took, found = run(DispatchedExecutor(executors[most]), jobs)
        line = {
            "workers": most,
            "killed": 1,
            "seconds": round(took, 2),
            "ratio": round(took / undisturbed, 3),
            "equal": all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)),
            "pid_gone": victim not in client.run(os.getpid).values(),
            **common,
        }
        lines.append(json.dumps(line))
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    for name, default in (("bindings", 4000), ("rounds", 5), ("shots", 1024)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with ExitStack() as stack:
        lines = measured({count: stack.enter_context(Cluster(count)) for count in options.workers}, options)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
