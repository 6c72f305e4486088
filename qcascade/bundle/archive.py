"""The writer of a bundle: contents in, one zip or directory out, whole or not at all, the same bytes for the same contents.

Everything is written beside the final name, flushed to the disk, and renamed; whatever fails before removes what was
written. Order is that of the paths, the manifest last; times are 1980, modes plain. Contents given as chunks are
streamed and hashed as they pass. In a zip the weights are stored, not deflated, and start at a multiple of 64 bytes, so
that a reader can map them in place; sizes beyond 4 GB use zip64.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Literal

from qcascade.bundle.manifest import MANIFEST, MAX_PATH, PATH, WEIGHTS, FileEntry, Manifest, read_manifest
from qcascade.errors import BundleError

Write = Callable[[bytes | memoryview], object]
Content = bytes | Callable[[Write], object]
Form = Literal["zip", "directory"]
ZIP_SUFFIXES = (".qcb", ".zip")
ALIGNMENT = 64  # bytes, of the weights in a zip
_PADDING = 0xD935  # extra field for alignment, as Android's zipalign writes it
_HEADER = 30  # bytes of a local header before the name
_ZIP64 = 20  # bytes of a local header's zip64 field
_TIME = (1980, 1, 1, 0, 0, 0)


def write_bundle(
    path: str | os.PathLike[str], manifest: Manifest, contents: Mapping[str, Content], *, form: Form | None = None
) -> Manifest:
    """Write a bundle; an older one of that name is replaced in one step (a directory: in two renames).

    Args:
        path: Where to.
        manifest: All but `files`, which is made here.
        contents: Path in the bundle to bytes, or to a function that is given `write` and calls it with one chunk after another.
        form: "zip" or "directory"; by default a zip for names that end in .qcb or .zip, a directory for all others.

    Returns:
        The manifest as written.

    Raises:
        BundleError: It cannot be written there, or the manifest does not fit the contents; nothing is left behind.

    Example:
        >>> import tempfile
        >>> from qcascade.bundle.manifest import TargetEntry
        >>> manifest = Manifest(producer="test", model="Tiny", target=TargetEntry(name="ideal"))
        >>> contents = {"model.onnx": b"", "weights.safetensors": lambda write: write(b"abc"), "report.json": b"{}"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = write_bundle(f"{folder}/tiny.qcb", manifest, contents)
        >>> [(entry.path, entry.size) for entry in written.files]
        [('model.onnx', 0), ('report.json', 2), ('weights.safetensors', 3)]
    """
    final = Path(path)
    chosen = form or ("zip" if final.suffix in ZIP_SUFFIXES else "directory")
    if chosen not in ("zip", "directory"):
        raise BundleError(f"form={form!r} is unknown; choose 'zip' or 'directory'.")
    for name in contents:
        if not re.fullmatch(PATH, name) or len(name) > MAX_PATH or name.casefold() == MANIFEST:
            raise BundleError(f"{name!r} is no path for a file of a bundle; see `manifest.file_name`.")
    write = _write_zip if chosen == "zip" else _write_directory
    try:
        _check_place(final, chosen)
        return write(final, manifest, dict(sorted(contents.items())))
    except OSError as error:
        raise BundleError(f"{final} cannot be written: {error.strerror or error}.") from error


def _check_place(final: Path, form: Form) -> None:
    if not final.name:
        raise BundleError(f"{final} is no name for a bundle.")
    if form == "zip" and final.is_dir():
        raise BundleError(f"{final} is a directory; remove it first, or give form='directory'.")
    if form == "directory" and final.exists():
        if not final.is_dir():
            raise BundleError(f"{final} is a file; remove it first, or give a name that ends in .qcb for a zip.")
        if any(final.iterdir()) and not (final / MANIFEST).is_file():
            raise BundleError(f"{final} holds other things than a bundle; give another name.")


def _write_zip(final: Path, manifest: Manifest, contents: dict[str, Content]) -> Manifest:
    temporary = _sibling(final)
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(descriptor, "w+b") as file:
            with zipfile.ZipFile(file, "w", allowZip64=True) as archive:

                @contextmanager
                def opened(name: str) -> Iterator[IO[bytes]]:
                    with archive.open(_entry(name, file.tell()), "w", force_zip64=name == WEIGHTS) as entry:
                        yield entry

                complete = _write_all(manifest, contents, opened)
            _flush(file)
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_directory(final.parent)
    return complete


def _write_directory(final: Path, manifest: Manifest, contents: dict[str, Content]) -> Manifest:
    temporary, old = _sibling(final), _sibling(final)
    try:
        temporary.mkdir()

        @contextmanager
        def opened(name: str) -> Iterator[IO[bytes]]:
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                yield file
                _flush(file)

        complete = _write_all(manifest, contents, opened)
        for folder in [p for p in temporary.rglob("*") if p.is_dir()]:
            _flush_directory(folder)
        _flush_directory(temporary)
        if final.exists():
            os.rename(final, old)
        try:
            os.rename(temporary, final)
        except BaseException:
            if old.exists():
                os.rename(old, final)
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _flush_directory(final.parent)
    return complete


def _write_all(
    manifest: Manifest, contents: dict[str, Content], opened: Callable[[str], AbstractContextManager[IO[bytes]]]
) -> Manifest:
    """Every file, then the manifest with their checksums."""
    entries = []
    for name, content in contents.items():
        with opened(name) as file:
            hashed = _Hashed(file)
            if isinstance(content, bytes):
                hashed.write(content)
            else:
                content(hashed.write)
        entries.append(FileEntry(path=name, sha256=hashed.digest.hexdigest(), size=hashed.size))
    complete = manifest.model_copy(update={"files": tuple(entries)})
    document = complete.to_json()
    read_manifest(document)  # what is written can be read
    with opened(MANIFEST) as file:
        file.write(document)
    return complete


class _Hashed:
    """Writes on, and keeps the checksum and size of what passed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, chunk: bytes | memoryview) -> None:
        self.file.write(chunk)
        self.digest.update(chunk)
        self.size += memoryview(chunk).nbytes


def _entry(name: str, offset: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    entry.compress_type = zipfile.ZIP_STORED if name == WEIGHTS else zipfile.ZIP_DEFLATED
    if name == WEIGHTS:
        start = offset + _HEADER + len(name) + _ZIP64 + 4
        pad = -start % ALIGNMENT
        entry.extra = struct.pack("<HH", _PADDING, pad) + bytes(pad)
    return entry


def _sibling(final: Path) -> Path:
    return final.parent / f".{final.name}.{secrets.token_hex(8)}.partial"


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a directory cannot be opened
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
