"""Mutated bundles, by the thousand: nothing but one of our errors or a load that runs; no crash, no hang, no growth.

`python tests/fuzz_bundle.py --count 100000 --processes 4` runs cases 0 to 99,999; a case is its number, so `--first N` goes
on where a run stopped and `--first N --count 1` repeats one. Workers are processes of their own: a crash or a case beyond its
deadline is seen from outside, reported, and the worker started again behind it.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Files = dict[str, bytes]
NASTY: list[Any] = [
    None, True, -1, 0, 1, 2, 7, 255, 2**31, 2**53, 2**62, 2**63, 2**64, -(2**63), 10**300, 0.5, -1e308, 1e-320, "", "x", "..",
    "../../etc/passwd", "/etc/passwd", "a/b/c/d/e/f", "C:\\x", "\x00", "é" * 50, "a" * 5000, "manifest.json", "model.onnx",
    "weights.safetensors", "__import__('os').abort()", "NaN", [], {}, [[]], [None], {"a": 1}, [1] * 1000, {"__class__": "x"},
]  # fmt: skip


def mutated(number: int, base: Files) -> tuple[bytes, bool]:
    """The zip of case `number`, and whether only bytes outside the checksummed contents may differ."""
    rng = random.Random(number)
    files = dict(base)
    kind = rng.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    _, mutate = KINDS[kind]
    return mutate(files, rng), kind in ("raw", "zip")


def pack(files: Files, rng: random.Random | None = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            stored = name == "weights.safetensors" or (rng is not None and rng.random() < 0.1)
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=1)
    return stream.getvalue()


def resealed(files: Files, rng: random.Random) -> bytes:
    """With the manifest's checksums and sizes made right again, so that what lies deeper is reached."""
    try:
        manifest = json.loads(files["manifest.json"])
        for entry in manifest["files"]:
            if entry["path"] in files:
                entry["sha256"] = hashlib.sha256(files[entry["path"]]).hexdigest()
                entry["size"] = len(files[entry["path"]])
        files["manifest.json"] = json.dumps(manifest).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return pack(files)


def raw(files: Files, rng: random.Random) -> bytes:
    return bytes_changed(pack(files, rng), rng)


def bytes_changed(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 30])):
        if not changed:
            break
        place = rng.randrange(len(changed))
        match rng.randrange(6):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del changed[place : place + rng.choice([1, 4, 100, len(changed)])]
            case 3:
                changed[place:place] = rng.randbytes(rng.choice([1, 4, 100]))
            case 4:
                other = rng.randrange(len(changed))
                changed[place : place + 8] = changed[other : other + 8]
            case _:
                changed[place : place + 4] = struct.pack(
                    "<I", rng.choice([0, 1, 2**31, 2**32 - 1, rng.getrandbits(32)])
                )
    return bytes(changed)


def zip_structure(files: Files, rng: random.Random) -> bytes:
    names = list(files)
    match rng.randrange(7):
        case 0:  # an extra or renamed file
            name = rng.choice(
                ["../x", "/x", "a/../b", "circuits/../../x", "x", "Model.onnx", "a\\b", "\x00", "é", "x" * 300, ".x"]
            )
            if rng.random() < 0.5:
                files[name] = b"x"
            else:
                files[name] = files.pop(rng.choice(names))
        case 1:  # one less
            del files[rng.choice(names)]
        case 2:  # a name twice
            stream = io.BytesIO(pack(files))
            with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
                warnings.simplefilter("ignore")
                name = rng.choice(names)
                archive.writestr(name, rng.choice([b"other", files[name]]))
            return stream.getvalue()
        case 3:  # a bomb
            files[rng.choice(names)] = bytes(rng.choice([2**20, 2**24, 2**26]))
        case 4:  # a link, a device, a folder
            stream = io.BytesIO()
            special = rng.choice(names)
            with zipfile.ZipFile(stream, "w") as archive:
                for name, data in files.items():
                    entry = zipfile.ZipInfo(name)
                    kind = rng.choice([0o120777, 0o060600, 0o040755, 0o010600]) if name == special else 0o100644
                    entry.external_attr = kind << 16
                    archive.writestr(entry, b"/etc/passwd" if name == special else data)
            return stream.getvalue()
        case 5:  # fields of the table of contents
            data = bytearray(pack(files))
            starts = [i for i in range(len(data) - 46) if data[i : i + 4] == b"PK\x01\x02"] or [0]
            place = rng.choice(starts) + rng.choice([6, 8, 10, 12, 16, 20, 24, 28, 30, 32, 34, 36, 38, 42])
            size = rng.choice([2, 4])
            data[place : place + size] = rng.choice([0, 1, 8, 2**16 - 1, rng.getrandbits(16)]).to_bytes(size, "little")
            return bytes(data)
        case _:  # the end of it
            data = bytearray(pack(files))
            place = len(data) - 22 + rng.choice([4, 6, 8, 10, 12, 16, 20])
            data[place : place + 2] = rng.getrandbits(16).to_bytes(2, "little")
            return bytes(data)
    return pack(files)


def json_changed(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return rng.choice([
            b"[" * 100_000, b'{"a":' * 50_000, b'{"a": NaN}', b'{"a": 1, "a": 2}', b"1" * 100_000, b'{"a": 1e999}', b"", b"null",
            b"\xff\xfe", data + b"x", b'"' + b"a" * 100_000, data[: len(data) // 2], b"[" + b"[]," * 50_000 + b"[]]",
        ])  # fmt: skip
    document = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        document = value_changed(document, rng)
    return json.dumps(document).encode()


def value_changed(document: Any, rng: random.Random) -> Any:
    """One place of a document, drawn by a walk from the top, changed."""
    holder, key, here = None, None, document
    while isinstance(here, (dict, list)) and here and (holder is None or rng.random() < 0.85):
        holder = here
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        here = holder[key]
    if holder is None:
        return copy.deepcopy(rng.choice(NASTY))
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), json.loads(json.dumps(rng.choice(holder))))
        case 2 if isinstance(holder, dict):
            holder[str(rng.choice(NASTY))] = holder.pop(key)
        case 3:
            holder[key] = json.loads(
                json.dumps(rng.choice(list(holder.values()) if isinstance(holder, dict) else holder))
            )
        case 4 if isinstance(here, (int, float)):
            holder[key] = here + rng.choice([-1, 1, 2, 1000])
        case _:
            holder[key] = copy.deepcopy(rng.choice(NASTY))  # later changes are this document's
    return document


def manifest(files: Files, rng: random.Random) -> bytes:
    files["manifest.json"] = json_changed(files["manifest.json"], rng)
    return pack(files)


def documents(files: Files, rng: random.Random) -> bytes:
    name = rng.choice([name for name in files if name.endswith(".json") and name != "manifest.json"])
    files[name] = json_changed(files[name], rng)
    return resealed(files, rng)


def contents(files: Files, rng: random.Random) -> bytes:
    name = rng.choice([name for name in files if name != "manifest.json"])
    files[name] = bytes_changed(files[name], rng)
    return resealed(files, rng)


def header(files: Files, rng: random.Random) -> bytes:
    data = files["weights.safetensors"]
    size = int.from_bytes(data[:8], "little")
    changed = json_changed(data[8 : 8 + size], rng)
    length = rng.choice([len(changed)] * 8 + [0, 2**40, 2**63])
    files["weights.safetensors"] = length.to_bytes(8, "little") + changed + data[8 + size :]
    return resealed(files, rng)


def onnx_fields(files: Files, rng: random.Random) -> bytes:
    import onnx

    model = onnx.ModelProto.FromString(files["model.onnx"])
    for _ in range(rng.choice([1, 1, 1, 1, 2, 4])):
        field_changed(model, rng, pool_of(model))
    files["model.onnx"] = model.SerializeToString()
    return resealed(files, rng)


def pool_of(model: Any) -> list[str]:
    names = {name for node in model.graph.node for name in (*node.input, *node.output, node.op_type, node.domain)}
    names |= {name for f in model.functions for node in f.node for name in (*node.input, *node.output, node.op_type)}
    extra = (
        "",
        "Loop",
        "If",
        "ConstantOfShape",
        "Expand",
        "Tile",
        "Range",
        "Pad",
        "NonZero",
        "com.microsoft",
        "ai.onnx.ml",
    )
    return [*sorted(names), *extra, *(one for one in NASTY if isinstance(one, str) and "\x00" not in one)]


def field_changed(message: Any, rng: random.Random, pool: list[str]) -> None:
    """One field of a protobuf message, drawn by a walk from the top, changed."""
    while True:
        descriptors = list(message.DESCRIPTOR.fields)
        present = [field for field, _ in message.ListFields()]
        field = rng.choice(present if present and rng.random() < 0.9 else descriptors)
        value = getattr(message, field.name)
        if field.is_repeated:
            if field.message_type is None:
                change_list(value, field, rng, pool)
                return
            if len(value) and rng.random() < 0.85:
                message = rng.choice(list(value))
                continue
            match rng.randrange(4):
                case 0 if len(value):
                    del value[rng.randrange(len(value))]
                case 1 if len(value):
                    value.add().CopyFrom(rng.choice(list(value)))
                case 2 if len(value) > 1:
                    first, second = rng.sample(range(len(value)), 2)
                    kept = type(value[first])()
                    kept.CopyFrom(value[first])
                    value[first].CopyFrom(value[second])
                    value[second].CopyFrom(kept)
                case _:
                    value.add()
            return
        if field.message_type is not None:
            if rng.random() < 0.9:
                message = value
                if not message.ListFields():
                    message.SetInParent()
                continue
            message.ClearField(field.name)
            return
        if rng.random() < 0.15:
            message.ClearField(field.name)
        else:
            assign(message, field, rng, pool)
        return


def scalar(field: Any, rng: random.Random, pool: list[str]) -> Any:
    kinds = field.CPPTYPE_STRING, field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_UINT64, field.CPPTYPE_ENUM
    if field.cpp_type == kinds[0]:
        text = rng.choice(pool)
        return text.encode() if field.type == field.TYPE_BYTES else text
    if field.cpp_type in kinds[1:]:
        return rng.choice([0, 1, 2, 3, 5, 7, 16, 1000, 2**20, 2**31 - 1, 2**40, 2**62, -1, -(2**31)])
    return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e38])


def assign(message: Any, field: Any, rng: random.Random, pool: list[str]) -> None:
    for _ in range(5):
        try:
            setattr(message, field.name, scalar(field, rng, pool))
            return
        except (ValueError, TypeError):
            continue


def change_list(values: Any, field: Any, rng: random.Random, pool: list[str]) -> None:
    try:
        match rng.randrange(3):
            case 0 if len(values):
                del values[rng.randrange(len(values))]
            case 1 if len(values):
                values[rng.randrange(len(values))] = scalar(field, rng, pool)
            case _:
                values.append(scalar(field, rng, pool))
    except (ValueError, TypeError):
        return


KINDS: dict[str, tuple[int, Callable[[Files, random.Random], bytes]]] = {
    "raw": (1, raw),
    "zip": (2, zip_structure),
    "manifest": (3, manifest),
    "documents": (3, documents),
    "contents": (2, contents),
    "header": (1, header),
    "onnx": (5, onnx_fields),
}


def judge(path: Path, harmless: bool, expected: Any, inputs: Any, deep: bool) -> str:
    """Load and use a bundle; what became of it. Anything but our own errors goes through."""
    import numpy as np

    from qcascade.bundle.bundle import load
    from qcascade.bundle.summary import inspect, inspected_text
    from qcascade.errors import BundleError, ExecutionError

    outcome = "refused"
    try:
        bundle = load(path, threads=1)
    except BundleError as error:
        return outcome if len(str(error)) < 3000 else f"FAILED message of {len(str(error))} characters"
    try:
        found = bundle(**inputs)
        outcome = "runs"
        if harmless:
            assert all(np.array_equal(found[name], expected[name]) for name in expected)
    except (BundleError, ExecutionError):
        outcome = "loads, refuses this call"
    if deep:
        for use in (
            lambda: bundle.use("statevector")(**inputs),
            bundle.to_torch,
            lambda: inspected_text(inspect(path)),
        ):
            try:
                use()
            except (BundleError, ExecutionError):
                outcome += ", less one use"
    return outcome


def worker(folder: Path, first: int, last: int, step: int) -> None:
    import numpy as np
    import torch

    from qcascade.bundle.bundle import load

    torch.set_num_threads(1)
    bases = []
    for path in sorted(folder.glob("base-*.qcb")):
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        inputs = dict(np.load(path.with_suffix(".npz")))
        bundle = load(path, threads=1)
        needy = any(entry.needs_executor for entry in bundle.manifest.kernels)
        bases.append((files, inputs, None if needy else bundle(**inputs)))
    place = folder / f"case-{os.getpid()}.qcb"
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    virtual = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    if virtual:
        resource.setrlimit(resource.RLIMIT_AS, (virtual + (6 << 30),) * 2)
    print(f"ready {used}", flush=True)
    for number in range(first, last, step):
        files, inputs, expected = bases[number % len(bases)]
        print(f"> {number}", flush=True)
        data, harmless = mutated(number, files)
        place.write_bytes(data)
        try:
            outcome = judge(place, harmless and expected is not None, expected, inputs, deep=number % 5 == 0)
        except BaseException as error:
            outcome = f"FAILED {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"< {outcome}", flush=True)
    print(f"done {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}", flush=True)
    place.unlink(missing_ok=True)


def watch(
    folder: Path, first: int, last: int, step: int, deadline: float, failures: list[str], counts: Counter[str]
) -> None:
    """Run a worker's cases, starting it again behind what kills it."""
    while first < last:
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            __file__,
            "--worker",
            str(folder),
            str(first),
            str(last),
            str(step),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stderr is not None
        began, current, start, killed = [time.monotonic() + 120], None, 0, threading.Event()

        def guard(process: subprocess.Popen[str] = process, began: list[float] = began, killed: Any = killed) -> None:
            while process.poll() is None:
                if time.monotonic() - began[0] > deadline:
                    killed.set()
                    process.kill()
                time.sleep(0.2)

        threading.Thread(target=guard, daemon=True).start()
        errors: list[str] = []
        threading.Thread(target=lambda p=process, e=errors: e.append(p.stderr.read()), daemon=True).start()
        done = False
        for line in process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "ready":
                start = int(rest)
            elif word == ">":
                current, began[0] = int(rest), time.monotonic()
            elif word == "<":
                counts[rest if not rest.startswith("FAILED") else "FAILED"] += 1
                if rest.startswith("FAILED"):
                    failures.append(f"case {current}: {rest}")
            elif word == "done":
                done = True
                counts["KB grown, most"] = max(counts["KB grown, most"], int(rest) - start)
        process.wait()
        if done:
            return
        late = "not ready in time" if current is None else f"beyond {deadline:g} s"
        reason = late if killed.is_set() else f"died with {process.returncode}"
        time.sleep(0.2)
        failures.append(f"{'the worker' if current is None else f'case {current}'}: {reason} {''.join(errors)[-600:]}")
        if current is None:
            return
        first = current + step


def make_bases(folder: Path, exported: bool) -> None:
    """The bundles that are mutated, and inputs for them; with what `qcascade.export` writes, which is slower to load."""
    import numpy as np
    from bundles import small_hybrid, write_small

    hybrid = small_hybrid()
    write_small(folder / "base-0.qcb", hybrid)
    write_small(folder / "base-1.qcb", hybrid, without_body=("2",))
    x = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    for number in range(2):
        np.savez(folder / f"base-{number}.npz", x=x)
    if exported:
        import torch

        import qcascade
        from qcascade.bundle import row_parts

        row_parts.WORTH = 1  # the feed-forward layers of so small a model in a Scan too
        layer = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
        model = torch.nn.Sequential(torch.nn.Embedding(50, 8), layer, torch.nn.Linear(8, 3))
        kernels = {"amplitude_attention_pooling": {"max_length": 16}, "amplitude_adapter": {}}
        whole = qcascade.compile(model, (torch.zeros(2, 6, dtype=torch.int64),), kernels=kernels).eval()
        qcascade.export(whole, folder / "base-2.qcb")
        (name,) = (entry.name for entry in qcascade.load(folder / "base-2.qcb").manifest.inputs)
        np.savez(folder / "base-2.npz", **{name: np.arange(12).reshape(2, 6)})
        layer = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
        only = {"amplitude_attention_pooling": {"max_length": 16}}
        scanned = qcascade.compile(layer, (torch.zeros(2, 6, 8),), kernels=only).eval()
        qcascade.export(scanned, folder / "base-3.qcb")
        bundle = qcascade.load(folder / "base-3.qcb")
        assert any(node.op_type == "Scan" for node in bundle._model.graph.node)
        np.savez(folder / "base-3.npz", **{bundle.manifest.inputs[0].name: np.ones((2, 6, 8), np.float32)})


def fuzz(
    first: int,
    count: int,
    processes: int,
    deadline: float = 20.0,
    bundle: Path | None = None,
    inputs: Path | None = None,
    exported: bool = False,
) -> tuple[list[str], Counter[str]]:
    """Run cases; what failed, and how often what came of them."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        if bundle is None or inputs is None:
            make_bases(Path(name), exported)
        else:
            shutil.copy(bundle, Path(name, "base-0.qcb"))
            shutil.copy(inputs, Path(name, "base-0.npz"))
        threads = [
            threading.Thread(
                target=watch, args=(Path(name), first + i, first + count, processes, deadline, failures, counts)
            )
            for i in range(processes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return failures, counts


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]), *map(int, sys.argv[3:6]))
        sys.exit(0)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--deadline", type=float, default=20.0, help="seconds a case may take")
    parser.add_argument("--bundle", type=Path, help="what to mutate, a .qcb; small ones made here by default")
    parser.add_argument("--inputs", type=Path, help="what to call it with, .npz")
    parser.add_argument("--exported", action="store_true", help="mutate what qcascade.export writes too")
    given = parser.parse_args()
    failed, outcomes = fuzz(
        given.first, given.count, given.processes, given.deadline, given.bundle, given.inputs, given.exported
    )
    for outcome, times in sorted(outcomes.items()):
        print(f"{times:8d}  {outcome}")
    print(f"{len(failed)} failures in cases {given.first} to {given.first + given.count - 1}")
    for line in failed[:50]:
        print(line)
    sys.exit(bool(failed))
