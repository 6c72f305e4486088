"""A service that forgets nothing around real backends that may: jobs and results survive the process that sent them.

`Cloud` is the provider's side: a SQLite file with every job it accepted, so that it can be asked afterwards what was bought,
twice or for nothing. What computes is real: pytket's AerBackend, or qiskit-ibm-runtime's SamplerV2 in local mode, one
circuit at a time with a seed made of its content, so that a circuit's counts are the same whenever and with whatever it
runs; a circuit that ran before is not simulated again. Between provider and client, `Faults` happen.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pytket.backends.backendresult import BackendResult
from pytket.backends.resulthandle import ResultHandle
from pytket.backends.status import CircuitStatus, StatusEnum
from pytket.circuit import Circuit
from pytket.extensions.qiskit import AerBackend
from pytket.utils.outcomearray import OutcomeArray
from qiskit import qpy
from qiskit.primitives import BitArray
from qiskit_ibm_runtime import SamplerV2


@dataclass(frozen=True)
class Faults:
    """Chances of what goes wrong, and seconds that anything takes."""

    refused: float = 0.0  # a submission is not accepted
    lost: float = 0.0  # a submission is accepted, and the answer is lost
    doubled: float = 0.0  # handles come back twice
    dropped: float = 0.0  # the connection breaks while results are fetched
    stuck: float = 0.0  # a job never ends
    truncated: float = 0.0  # a job stops after half of the shots
    latency: tuple[float, float] = (0.0, 0.0)


class Cloud:
    """The provider's books."""

    def __init__(self, path: Path, faults: Faults | None = None, seed: int | None = None) -> None:
        self.path, self.faults, self.random = path, faults or Faults(), random.Random(seed)
        self._local = threading.local()
        self.books.executescript(
            "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, tag TEXT, state TEXT, shots INTEGER, taken INTEGER,"
            " fetched INTEGER DEFAULT 0, ready REAL);"
            "CREATE TABLE IF NOT EXISTS circuits (job TEXT, place INTEGER, content TEXT, PRIMARY KEY (job, place));"
            "CREATE TABLE IF NOT EXISTS programs (name TEXT PRIMARY KEY, qpy BLOB);"
            "CREATE TABLE IF NOT EXISTS results (content TEXT PRIMARY KEY, outcomes BLOB);"
        )

    @property
    def books(self) -> sqlite3.Connection:
        if not hasattr(self._local, "books"):
            self._local.books = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._local.books.execute("PRAGMA journal_mode=WAL")
            self._local.books.execute("PRAGMA synchronous=OFF")
        return self._local.books

    def happens(self, chance: float) -> bool:
        return self.random.random() < chance

    def delay(self) -> float:
        return self.random.uniform(*self.faults.latency)

    def accept(self, tag: str, contents: Sequence[str], shots: int) -> str:
        """A job's id; its circuits are accepted all or none."""
        time.sleep(self.delay())
        if self.happens(self.faults.refused):
            raise ConnectionRefusedError("the service takes no jobs now")
        job = uuid.uuid4().hex
        taken = shots // 2 if self.happens(self.faults.truncated) else shots
        state = "stuck" if self.happens(self.faults.stuck) else "accepted"
        self.books.execute("BEGIN IMMEDIATE")
        self.books.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, 0, ?)", (job, tag, state, shots, taken, time.time() + self.delay())
        )
        rows = [(job, place, content) for place, content in enumerate(contents)]
        self.books.executemany("INSERT INTO circuits VALUES (?, ?, ?)", rows)
        self.books.execute("COMMIT")
        if self.happens(self.faults.lost):
            raise ConnectionResetError("the connection was lost")
        return job

    def ready(self, job: str) -> int:
        """Shots taken, once the job has ended."""
        if self.happens(self.faults.dropped):
            raise ConnectionAbortedError("the connection was lost")
        while True:
            row = self.books.execute("SELECT state, taken, ready FROM jobs WHERE id=?", (job,)).fetchone()
            if row is None:
                raise KeyError(f"no job {job}")
            state, taken, at = row
            if state == "cancelled":
                raise RuntimeError(f"job {job} was cancelled")
            if state == "accepted" and time.time() >= at:
                return int(taken)
            time.sleep(0.01)

    def fetched(self, job: str) -> None:
        self.books.execute("UPDATE jobs SET fetched = fetched + 1 WHERE id=?", (job,))

    def cancel(self, job: str) -> None:
        """Jobs that have ended stay as they are."""
        self.books.execute("UPDATE jobs SET state='cancelled' WHERE id=? AND state='stuck'", (job,))

    def is_cancelled(self, job: str) -> bool:
        return bool(self.books.execute("SELECT state='cancelled' FROM jobs WHERE id=?", (job,)).fetchone()[0])

    def tagged(self, tag: str) -> str | None:
        time.sleep(self.delay())
        row = self.books.execute("SELECT id FROM jobs WHERE tag=? AND state!='cancelled'", (tag,)).fetchone()
        return None if row is None else str(row[0])

    def contents(self, job: str) -> list[str]:
        rows = self.books.execute("SELECT content FROM circuits WHERE job=? ORDER BY place", (job,))
        return [str(row[0]) for row in rows]

    def known(self, content: str) -> np.ndarray | None:
        row = self.books.execute("SELECT outcomes FROM results WHERE content=?", (content,)).fetchone()
        return None if row is None else np.load(io.BytesIO(row[0]))

    def learn(self, content: str, outcomes: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.save(buffer, outcomes)
        self.books.execute("INSERT OR IGNORE INTO results VALUES (?, ?)", (content, buffer.getvalue()))

    def audit(self) -> dict[str, int]:
        """What was sold: jobs, circuits, circuits sold more than once, and jobs whose results nobody has fetched."""

        def one(query: str) -> int:
            return int(self.books.execute(query).fetchone()[0])

        sold = "FROM circuits JOIN jobs ON jobs.id = circuits.job WHERE jobs.state = 'accepted'"
        return {
            "jobs": one("SELECT count(*) FROM jobs WHERE state = 'accepted'"),
            "circuits": one(f"SELECT count(*) {sold}"),
            "twice": one(f"SELECT count(*) FROM (SELECT content {sold} GROUP BY content HAVING count(*) > 1)"),
            "unfetched": one("SELECT count(*) FROM jobs WHERE state = 'accepted' AND fetched = 0"),
            "cancelled": one("SELECT count(*) FROM jobs WHERE state = 'cancelled'"),
            "truncated": one("SELECT count(*) FROM jobs WHERE state = 'accepted' AND taken < shots"),
        }

    def forget_jobs(self) -> None:
        """Empty the books; what circuits give is still known."""
        self.books.executescript("DELETE FROM jobs; DELETE FROM circuits;")


class CloudAer(AerBackend):
    """pytket's AerBackend behind the cloud: handles persist."""

    _persistent_handles = True

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self.cloud, self._circuits = cloud, dict[str, Circuit]()

    def process_circuits(
        self, circuits: Sequence[Circuit], n_shots: Any = None, valid_check: bool = True, **options: Any
    ) -> list[ResultHandle]:
        contents = []
        for circuit in circuits:
            plain = circuit.to_dict()
            plain.pop("name", None)
            contents.append(json.dumps([plain, n_shots], sort_keys=True))
        job = self.cloud.accept((circuits[0].name or "").rpartition("/")[0], contents, n_shots)
        handles = [ResultHandle(job, place, -1, "null") for place in range(len(circuits))]
        return handles * (2 if self.cloud.happens(self.cloud.faults.doubled) else 1)

    def get_result(self, handle: ResultHandle, **options: Any) -> BackendResult:
        job, place = str(handle[0]), int(handle[1])  # type: ignore[arg-type]
        taken = self.cloud.ready(job) if place == 0 else self._taken(job)
        contents = self.cloud.contents(job)
        outcomes = self._outcomes(contents[place])[:taken]
        if place == len(contents) - 1:
            self.cloud.fetched(job)
        return BackendResult(shots=OutcomeArray.from_readouts(outcomes))

    def cancel(self, handle: ResultHandle) -> None:
        self.cloud.cancel(str(handle[0]))

    def circuit_status(self, handle: ResultHandle) -> CircuitStatus:
        cancelled = self.cloud.is_cancelled(str(handle[0]))
        return CircuitStatus(StatusEnum.CANCELLED if cancelled else StatusEnum.RUNNING)

    def find(self, tag: str) -> list[ResultHandle] | None:
        job = self.cloud.tagged(tag)
        if job is None:
            return None
        return [ResultHandle(job, place, -1, "null") for place in range(len(self.cloud.contents(job)))]

    def _taken(self, job: str) -> int:
        return int(self.cloud.books.execute("SELECT taken FROM jobs WHERE id=?", (job,)).fetchone()[0])

    def _outcomes(self, content: str) -> np.ndarray:
        """By the real backend, seeded by content."""
        known = self.cloud.known(content)
        if known is None:
            plain, shots = json.loads(content)
            handle = super().process_circuits([Circuit.from_dict(plain)], shots, False, seed=_seed(content))[0]
            known = super().get_result(handle).get_shots().astype(np.uint8)
            self.cloud.learn(content, known)
        return known


class CloudSampler:
    """SamplerV2 behind the cloud, with the options and jobs that `RuntimeExecutor` uses."""

    def __init__(self, sampler: SamplerV2, cloud: Cloud) -> None:
        self.sampler, self.cloud, self.options = sampler, cloud, sampler.options
        self._circuits: dict[str, Any] = {}
        self._one = threading.Lock()

    def run(self, pubs: Sequence[tuple[Any, np.ndarray, int]]) -> CloudJob:
        contents = []
        for circuit, angles, shots in pubs:
            text = repr([(i.name, [str(p) for p in i.params], [circuit.find_bit(q).index for q in i.qubits],
                          [circuit.find_bit(c).index for c in i.clbits]) for i in circuit.data])  # fmt: skip
            name = hashlib.sha256(text.encode()).hexdigest()
            if name not in self._circuits:
                self._circuits[name] = circuit
                buffer = io.BytesIO()
                qpy.dump(circuit, buffer)
                row = (name, buffer.getvalue())
                self.cloud.books.execute("INSERT OR IGNORE INTO programs VALUES (?, ?)", row)
            contents += [json.dumps([name, row.tolist(), shots]) for row in angles]
        tags = self.options.environment.job_tags or [""]
        return CloudJob(self, self.cloud.accept(tags[0], contents, pubs[0][2]))

    def outcomes(self, content: str) -> np.ndarray:
        """Packed bits [shots, bytes] by the real client, seeded by content."""
        known = self.cloud.known(content)
        if known is None:
            name, row, shots = json.loads(content)
            circuit = self.circuit(name)
            with self._one:
                self.sampler.options.simulator.seed_simulator = _seed(content)
                known = self.sampler.run([(circuit, row, shots)]).result()[0].data.c.array
            self.cloud.learn(content, known)
        return known

    def circuit(self, name: str) -> Any:
        """Of whichever process sent it."""
        if name not in self._circuits:
            (found,) = self.cloud.books.execute("SELECT qpy FROM programs WHERE name=?", (name,)).fetchone()
            self._circuits[name] = qpy.load(io.BytesIO(found))[0]
        return self._circuits[name]

    # what RuntimeExecutor asks of IBM's service
    def job(self, number: str) -> CloudJob:
        return CloudJob(self, number)

    def jobs(self, job_tags: list[str], limit: int) -> list[CloudJob]:
        found = self.cloud.tagged(job_tags[0])
        return [] if found is None else [CloudJob(self, found)]


class CloudJob:
    """A job of the sampler."""

    def __init__(self, sampler: CloudSampler, number: str) -> None:
        self.sampler, self.number = sampler, number

    def job_id(self) -> str:
        return self.number

    def cancel(self) -> None:
        self.sampler.cloud.cancel(self.number)

    def status(self) -> str:
        return "CANCELLED" if self.sampler.cloud.is_cancelled(self.number) else "RUNNING"

    def result(self) -> list[Any]:
        taken = self.sampler.cloud.ready(self.number)
        last, groups = None, []
        for content in self.sampler.cloud.contents(self.number):
            name = json.loads(content)[0]
            if name != last:
                groups.append((name, []))
                last = name
            groups[-1][1].append(self.sampler.outcomes(content)[:taken])
        self.sampler.cloud.fetched(self.number)
        return [_Pub(np.stack(rows), self.sampler.circuit(name).num_clbits) for name, rows in groups]


class _Pub:
    """As much of a PubResult as is read: `.data.c`."""

    def __init__(self, array: np.ndarray, bits: int) -> None:
        self.c = BitArray(array, bits)
        self.data = self


def _seed(content: str) -> int:
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "little") % 2**31
