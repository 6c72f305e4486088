"""This machine, measured once: matrix product rates by size, memory bandwidth, one operator call, circuit simulation.

The profile is calibrated in about a second at its first use (half a minute where the simulator has never been compiled)
and kept in the user's cache folder (see `qcascade.cache`), one file for each processor, thread count and torch version.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from qcascade.cache import read_cached, write_cached
from qcascade.circuits.ansatze import random_rotations
from qcascade.circuits.observables import single_z
from qcascade.circuits.template import CircuitTemplate, Expectations
from qcascade.engine import flops, lower, simulate

_SIZES = (16, 64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Machine:
    """A roofline whose roof depends on the size of the product.

    `rates` are float32 FLOP/s of products of s × s blocks for each s of `sizes`; between them the logarithm is
    interpolated.
    """

    name: str
    threads: int
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    bytes_per_second: float
    seconds_per_call: float
    circuit_rate: float  # FLOP/s of the circuit simulator, in its own count of operations

    def rate(self, size: float) -> float:
        """FLOP/s of products whose smallest dimension is `size`.

        Example:
            >>> Machine("m", 1, (16, 64), (1e9, 4e9), 1e10, 1e-6, 1e9).rate(32)
            2000000000.0
        """
        size = min(max(size, 1.0), float(self.sizes[-1]))
        if size <= self.sizes[0]:
            return self.rates[0] * size / self.sizes[0]
        for (low, slow), (high, fast) in zip(
            zip(self.sizes, self.rates, strict=True), zip(self.sizes[1:], self.rates[1:], strict=True), strict=False
        ):
            if size <= high:
                share = math.log(size / low) / math.log(high / low)
                return float(round(slow ** (1 - share) * fast**share, 3))
        return self.rates[-1]

    def seconds(self, flops: float, moved: float, size: float) -> float:
        """One operator's time: the larger of arithmetic and memory, and the call itself."""
        return max(flops / self.rate(size), moved / self.bytes_per_second) + self.seconds_per_call

    def circuit_seconds(self, flops: float) -> float:
        """A simulation's time; what surrounds it in torch costs about twenty calls of an operator."""
        return flops / self.circuit_rate + 20 * self.seconds_per_call


def this_machine() -> Machine:
    """The profile of this machine with torch's current thread count, from the cache or calibrated now."""
    processor = platform.processor() or platform.node()
    name = f"{platform.machine()} {processor}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    threads = torch.get_num_threads()
    key = hashlib.sha256(f"{name} {threads} {torch.__version__} 2".encode()).hexdigest()[:16]
    file = f"machine-{key}"
    stored = read_cached(file)
    try:
        return Machine(**{**stored, "sizes": tuple(stored["sizes"]), "rates": tuple(stored["rates"])})
    except (TypeError, KeyError):
        machine = calibrate(name, threads)
    write_cached(file, asdict(machine))
    return machine


def calibrate(name: str, threads: int) -> Machine:
    """Measure; each figure is the best of several short runs."""
    rates = []
    for size in _SIZES:
        batch = max(1, 2**22 // size**2)
        a, b = torch.rand(batch, size, size), torch.rand(batch, size, size)
        rates.append(2 * batch * size**3 / _best(lambda a=a, b=b: torch.bmm(a, b)))  # type: ignore[misc]
    block = torch.rand(2**22)
    moved = 3 * 4 * block.numel() / _best(lambda: torch.add(block, block))
    call = _best(_small_calls) / 200
    return Machine(name, threads, _SIZES, tuple(rates), moved, call, _circuit_rate())


def _small_calls() -> None:
    """Two hundred operators on next to nothing, recorded for and run by autograd as a model's are."""
    one = torch.rand(8, 2, requires_grad=True)
    value = one
    for _ in range(20):
        value = (value.unsqueeze(0) * 1.5 + one).transpose(0, 1).reshape(8, 2)
    value.sum().backward()


def _circuit_rate() -> float:
    """Of a batch of entangled circuits on as many qubits as the embedding's; the first run ever also compiles."""
    circuit, angles = random_rotations(8, 4, 2, seed=0)
    program, measured = lower(CircuitTemplate(circuit, angles, ())), Expectations(single_z(8))
    data = torch.rand(256, len(angles))
    return len(data) * flops(program, measured, loaded=False) / _best(lambda: simulate(program, measured, data=data))


def _best(work: Callable[[], object]) -> float:
    best = math.inf
    for _ in range(6):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
