"""The reader of a bundle: a path in, an `Archive` out whose every file is listed, of the listed size and checksum.

A zip is read in place: small files are inflated in memory, the weights are mapped. A directory is opened file by file
relative to itself. Nothing is written, no name of the bundle is used as a path before it is checked, and what is read is
bounded beforehand. Refused: paths that leave the bundle, links (symbolic and hard), anything that is no plain file, names
that stand twice, files that are not listed, sizes that differ from those declared, zip bombs, encryption, compressed
weights, wrong checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import mmap
import os
import re
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from qcascade.bundle.manifest import MANIFEST, MAX_PATH, MODEL, PATH, WEIGHTS, Manifest, read_manifest
from qcascade.errors import BundleError

MAX_FILES = 10_000
MAX_MANIFEST = 16 << 20  # bytes
MAX_FILE = 64 << 20  # bytes, of a file that is read whole: all but the weights
MAX_TOTAL = 512 << 20  # bytes, of all such files
MAX_DIRECTORY = 2 << 20  # bytes, of a zip's table of contents
MAX_RATIO = 200  # of a deflated file of more than 1 MB
_DEFLATED = 1 << 20
_LOCAL = struct.Struct("<4s5H3L2H")


class Archive:
    """An opened and verified bundle. It is closed by `close`, at the end of a `with`, or when nothing refers to it.

    Args:
        store: Where the files are.
        manifest: What the bundle says of itself.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._store, self.manifest = store, manifest

    @property
    def path(self) -> Path:
        """Where the bundle is."""
        return self._store.path

    @property
    def size(self) -> int:
        """Bytes of the zip, or of all files of a directory."""
        return self._store.size

    def read(self, name: str) -> bytes:
        """A file's content, its checksum verified.

        Raises:
            BundleError: It is not listed, or not what is listed.
        """
        entry = self.manifest.file(name)
        with _plain_errors(self.path, name):
            data = self._store.read(name, entry.size)
        if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), entry.sha256):
            raise BundleError(f"{self.path}: {name} does not have the checksum that the manifest lists; get it again.")
        return data

    def weights(self) -> memoryview:
        """The weights' file, mapped; its checksum was verified when the bundle was opened."""
        return self._store.weights()

    def close(self) -> None:
        """Let go of the files; arrays that lie in the mapped weights stay good."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_archive(path: str | os.PathLike[str]) -> Archive:
    """Open a bundle and verify every file of it.

    Raises:
        BundleError: There is none, or it is damaged, incomplete or not safe to read.
    """
    place = Path(path)
    with _plain_errors(place):
        if not place.exists():
            raise BundleError(f"there is no bundle {place}.")
        store: Store = _Directory(place) if place.is_dir() else _Zip(place)
    try:
        archive = Archive(store, _verified(store))
    except BaseException:
        store.close()
        raise
    return archive


def _verified(store: Store) -> Manifest:
    sizes = store.sizes
    if MANIFEST not in sizes:
        raise BundleError(f"{store.path} is no bundle: it has no {MANIFEST}.")
    if sizes[MANIFEST] > MAX_MANIFEST:
        raise BundleError(f"{store.path}: {MANIFEST} has {sizes[MANIFEST]} bytes; at most {MAX_MANIFEST} are read.")
    with _plain_errors(store.path, MANIFEST):
        document = store.read(MANIFEST, sizes[MANIFEST])
    manifest = read_manifest(document)
    listed = {entry.path: entry for entry in manifest.files}
    if extra := sorted(set(sizes) - set(listed) - {MANIFEST}):
        raise BundleError(f"{store.path} holds {extra[0]!r}, which its manifest does not list.")
    for name, entry in listed.items():
        if name not in sizes:
            raise BundleError(f"{store.path} has no file {name!r}, which its manifest lists; get it again.")
        if sizes[name] != entry.size:
            raise BundleError(
                f"{store.path}: {name} has {sizes[name]} bytes, the manifest lists {entry.size}; get it again."
            )
        if name != WEIGHTS and entry.size > MAX_FILE:
            raise BundleError(f"{store.path}: {name} has {entry.size} bytes; at most {MAX_FILE} are read.")
    if (total := sum(entry.size for name, entry in listed.items() if name != WEIGHTS)) > MAX_TOTAL:
        raise BundleError(
            f"{store.path}: its files beside the weights have {total} bytes; at most {MAX_TOTAL} are read."
        )
    archive = Archive(store, manifest)
    for name in sorted(set(listed) - {WEIGHTS}, key=lambda name: (name != MODEL, name)):
        archive.read(name)
    with _plain_errors(store.path, WEIGHTS):
        found = hashlib.sha256(store.weights()).hexdigest()
    if not hmac.compare_digest(found, listed[WEIGHTS].sha256):
        raise BundleError(f"{store.path}: {WEIGHTS} does not have the checksum that the manifest lists; get it again.")
    return manifest


class Store(ABC):
    """Files by their paths in the bundle, and how large each claims to be."""

    path: Path
    size: int
    sizes: dict[str, int]

    @abstractmethod
    def read(self, name: str, size: int) -> bytes:
        """Exactly `size` bytes, which must be all there are."""

    @abstractmethod
    def weights(self) -> memoryview:
        """The weights, mapped."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""


class _Zip(Store):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _Bounded(path)
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} is no plain file.")
            self.size = status.st_size
            self._archive = zipfile.ZipFile(self._file)
            self._file.limit = MAX_FILE + 1
            self._entries = self._listed()
        except BaseException:
            self._file.close()
            raise
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}
        self._map: mmap.mmap | None = None

    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        seen: set[str] = set()
        if len(self._archive.filelist) > MAX_FILES:
            raise BundleError(f"{self.path} holds {len(self._archive.filelist)} files; at most {MAX_FILES} are read.")
        for entry in self._archive.filelist:
            name = entry.orig_filename
            if name.endswith("/") and not entry.file_size:
                _check_path(self.path, name[:-1])
                continue  # a folder's own entry, as zip programs write it
            _check_path(self.path, name)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise BundleError(f"{self.path}: {name} is a link or another special file; plain files are read.")
            if name.casefold() in seen:
                raise BundleError(f"{self.path} holds {name!r} twice.")
            if entry.flag_bits & 0x1:
                raise BundleError(f"{self.path}: {name} is encrypted; bundles are not.")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BundleError(
                    f"{self.path}: {name} is compressed by method {entry.compress_type}; deflate is read."
                )
            if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
                raise BundleError(f"{self.path}: {name} is stored, but its sizes differ.")
            if entry.compress_size > self.size:
                raise BundleError(f"{self.path}: {name} claims more bytes than the file has; it may be cut short.")
            if entry.file_size > max(_DEFLATED, MAX_RATIO * entry.compress_size):
                raise BundleError(
                    f"{self.path}: {name} would inflate {entry.compress_size} bytes to {entry.file_size}; "
                    f"at most {MAX_RATIO} times is read."
                )
            seen.add(name.casefold())
            entries[name] = entry
        return entries

    def read(self, name: str, size: int) -> bytes:
        entry = self._entries[name]
        with self._archive.open(entry) as file:
            data = file.read(size + 1)
        if len(data) != size:
            raise BundleError(f"{self.path}: {name} has other than the {size} bytes declared.")
        return data

    def weights(self) -> memoryview:
        entry = self._entries[WEIGHTS]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise BundleError(
                f"{self.path}: {WEIGHTS} is compressed, and could not be mapped; store it (zip -0), or unzip the bundle and "
                "load the directory."
            )
        if not entry.file_size:
            return memoryview(b"")
        self._file.seek(entry.header_offset)
        head = self._file.read(_LOCAL.size)
        if len(head) != _LOCAL.size or not head.startswith(b"PK\x03\x04"):
            raise BundleError(f"{self.path}: {WEIGHTS} has no header where the table of contents says.")
        fields = _LOCAL.unpack(head)
        start = entry.header_offset + _LOCAL.size + fields[-2] + fields[-1]
        if start + entry.file_size > self.size:
            raise BundleError(f"{self.path} is cut short within {WEIGHTS}; get it again.")
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)[start : start + entry.file_size]

    def close(self) -> None:
        self._archive.close()
        self._file.close()
        self._map = None  # unmapped when the last view of it is gone


class _Bounded(io.FileIO):
    """A file of which no more than `limit` bytes can be read at once: the zip reader takes sizes from the file."""

    limit = MAX_DIRECTORY

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        if wanted > self.limit:
            raise BundleError(
                f"{self.name}: a piece of {wanted} bytes is to be read at once; at most {self.limit} are."
            )
        return super().read(size) or b""


class _Directory(Store):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sizes = dict(self._walk(self._root, ""))
        except BaseException:
            self.close()
            raise
        self.size = sum(self.sizes.values())

    def _walk(self, folder: int, prefix: str) -> Iterator[tuple[str, int]]:
        with os.scandir(folder) as found:
            for count, entry in enumerate(found):
                name = prefix + entry.name
                if count >= MAX_FILES:
                    raise BundleError(f"{self.path} holds more than {MAX_FILES} files.")
                _check_path(self.path, name)
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    inner = os.open(entry.name, _DIRECTORY, dir_fd=folder)
                    try:
                        yield from self._walk(inner, f"{name}/")
                    finally:
                        os.close(inner)
                    continue
                _check_plain(self.path, name, status)
                yield name, status.st_size

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """A descriptor of the file, reached through no link."""
        *folders, last = name.split("/")
        with contextlib.ExitStack() as stack:
            here = self._root
            for folder in folders:
                here = os.open(folder, _DIRECTORY, dir_fd=here)
                stack.callback(os.close, here)
            descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
            stack.callback(os.close, descriptor)
            _check_plain(self.path, name, os.fstat(descriptor))
            yield descriptor

    def read(self, name: str, size: int) -> bytes:
        with self._opened(name) as descriptor, open(descriptor, "rb", closefd=False) as file:
            data = file.read(size + 1)
        if len(data) != size:
            raise BundleError(f"{self.path}: {name} has other than the {size} bytes listed; get it again.")
        return data

    def weights(self) -> memoryview:
        with self._opened(WEIGHTS) as descriptor:
            size = os.fstat(descriptor).st_size
            if size != self.sizes[WEIGHTS]:
                raise BundleError(f"{self.path}: {WEIGHTS} changes while it is read.")
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
        self._root = -1


_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


def _check_path(place: Path, name: str) -> None:
    if len(name) > MAX_PATH or not re.fullmatch(PATH, name):
        raise BundleError(
            f"{place} holds {name[:MAX_PATH]!r}; a bundle holds plain names without '..', in at most three folders."
        )


def _check_plain(place: Path, name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise BundleError(f"{place}: {name} is a link or no plain file; copy the bundle without links.")


@contextlib.contextmanager
def _plain_errors(place: Path, name: str = "") -> Iterator[None]:
    """What the system and the zip reader raise on a bad file, as one error."""
    here = f"{place}: {name}" if name else str(place)
    try:
        yield
    except OSError as error:
        raise BundleError(f"{here} cannot be read: {error.strerror or error}.") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise BundleError(f"{here} is no readable zip: {str(error)[:200]}. Get it again.") from error
