"""The manifest of a bundle, schema 1.0: what it holds, how it is called, and the checksum of every other file.

`read_manifest` takes the bytes of `manifest.json` and gives a checked `Manifest`; `Manifest.to_json` is its inverse.
Unknown fields, wrong types, names that two things share, paths that leave the bundle and references to files that are
not listed are refused. Documents of an older version are migrated first, one step a version; a newer major version is
refused, and so is a newer minor one, since its fields are unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError, model_validator

from qcascade.bundle.strict_json import read_json, write_json
from qcascade.errors import BundleError

SCHEMA_VERSION = "1.0"
DOMAIN = "qcascade"  # of the kernels' nodes and functions
MANIFEST, MODEL, WEIGHTS, GRAPH, REPORT = (
    "manifest.json",
    "model.onnx",
    "weights.safetensors",
    "graph.json",
    "report.json",
)
MAX_PATH = 200  # characters
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
PATH = rf"^{_SEGMENT}(/{_SEGMENT}){{0,3}}$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH, pattern=PATH)]
Count = Annotated[int, Field(ge=0, le=2**62)]
Dtype = Literal["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TensorEntry(_Part):
    """An input or output of the model, by its name in the ONNX graph."""

    name: Name
    dtype: Dtype
    shape: tuple[Count | Name | None, ...]  # a name or null where a dimension is free; equal names are equal sizes
    maximum: tuple[Count | None, ...] | None = None  # the largest size of every dimension, where one is known
    rules: tuple[tuple[Count, Annotated[int, Field(ge=1, le=2**62)], Count] | None, ...] | None = (
        None  # of every dimension: the smallest size, the step between sizes and their remainder by it, where there is a rule
    )
    ids_below: Count | None = None  # token ids that are accepted
    required: bool = False  # whether a left-out attention_mask is not simply one of ones


class CircuitFiles(_Part):
    """One circuit in both formats."""

    pytket: FilePath
    qasm: FilePath | None = None  # null where OpenQASM has no form for it


class CircuitEntry(_Part):
    """A circuit of a kernel."""

    name: Name
    qubits: Count
    symbols: tuple[Name, ...]
    designed: CircuitFiles
    compiled: CircuitFiles | None = None  # for the bundle's target; null where there is none
    nodes: tuple[Count, ...] | None = None  # of the device: which one each qubit of the compiled circuit is
    measured: tuple[Count, ...] | None = None  # at the end of the compiled circuit: where each designed qubit is in it

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if self.nodes is not None and len(set(self.nodes)) < len(self.nodes):
            raise ValueError(f"nodes are {str(self.nodes)[:100]}; each is needed once")
        if self.measured is not None:
            places = {*self.measured} & {*range(len(self.nodes or ()))}
            if not len(places) == len(self.measured) == self.qubits:
                raise ValueError(
                    f"measured is {str(self.measured)[:100]}; a place in nodes is needed for each qubit, once"
                )
        return self


class KernelEntry(_Part):
    """A quantum kernel: its node in the ONNX graph, what it is made with, its weights and its circuits.

    `inputs` are the tensors of the graph that its forward takes, in order; the node's other inputs are weights.
    """

    name: Name  # the region's
    module: Name  # dotted path of the kernel in the hybrid
    kernel: Name  # of the registry
    function: Name  # ONNX function of domain qcascade; kernels may share one
    node: Name  # ONNX node
    arguments: dict[str, JsonValue]  # what `QuantumKernel.from_arguments` takes
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    weights: dict[str, Name]  # path of a parameter or buffer in the kernel -> tensor of weights.safetensors
    derived: dict[str, Name] = Field(default_factory=dict)  # tensors made from the weights for the function's body
    circuits: tuple[CircuitEntry, ...]
    needs_executor: Name | None = None  # why the function has no body; null where it has one


class TargetEntry(_Part):
    """The device that the plan was made for."""

    name: Name
    document: dict[str, JsonValue] | None = None  # as `Target.to_json` writes it; null for "ideal"


class FileEntry(_Part):
    """A file of the bundle."""

    path: FilePath
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Count  # bytes


class Manifest(_Part):
    """What a bundle holds.

    Example:
        >>> manifest = Manifest(producer="qcascade 0.1.0", model="Tiny", target=TargetEntry(name="ideal"))
        >>> read_manifest(manifest.to_json(), check_files=False) == manifest
        True
    """

    schema_version: Literal["1.0"] = "1.0"
    producer: Name
    model: str  # class name of the model
    target: TargetEntry
    inputs: tuple[TensorEntry, ...] = ()
    outputs: tuple[TensorEntry, ...] = ()
    kernels: tuple[KernelEntry, ...] = ()
    files: tuple[FileEntry, ...] = ()  # all but manifest.json, in order of their paths

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for what, names in (
            ("inputs", [entry.name for entry in self.inputs]),
            ("outputs", [entry.name for entry in self.outputs]),
            ("kernels", [entry.name for entry in self.kernels]),
            ("nodes of kernels", [entry.node for entry in self.kernels]),
            ("files", [entry.path.casefold() for entry in self.files]),
        ):
            if (twice := _twice(names)) is not None:
                raise ValueError(f"{what}: {twice!r} stands twice")
        return self

    def to_json(self) -> bytes:
        """The document as it stands in a bundle."""
        return write_json(self.model_dump(mode="json"))

    def file(self, path: str) -> FileEntry:
        """The entry of a file.

        Raises:
            BundleError: It is not listed.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise BundleError(f"the bundle has no file {path!r}.")


def file_name(name: str, taken: Iterable[str] = ()) -> str:
    """A file name for a thing of any name, which differs from those taken also where case does not count.

    Example:
        >>> file_name("encoder.layer.0/attention head")
        'encoder.layer.0_attention_head'
        >>> file_name("a b", taken=["a_b"])
        'a_b-2'
    """
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:100]
    plain = plain if re.match(r"[A-Za-z0-9_]", plain) else f"_{plain}"
    others = {one.casefold() for one in taken}
    made, number = plain, 1
    while made.casefold() in others:
        number += 1
        made = f"{plain}-{number}"
    return made


def read_manifest(data: bytes, *, check_files: bool = True) -> Manifest:
    """The manifest of a document, migrated where it is of an older version.

    Args:
        data: Content of `manifest.json`.
        check_files: Whether the files that a bundle must have, and those that circuits name, must be listed.

    Raises:
        BundleError: It is no manifest, or of a version that is not read here.
    """
    document = migrated(read_json(data, MANIFEST))
    try:
        manifest = Manifest.model_validate_json(write_json(document, indent=None))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:60] for part in first["loc"][:6]) or "the document"
        raise BundleError(f"{MANIFEST} is not valid: {place}: {first['msg'][:200]}.") from error
    if check_files:
        _check_files(manifest)
    return manifest


MIGRATIONS: Mapping[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {}  # version -> next one, and how


def migrated(
    document: Any,
    steps: Mapping[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] | None = None,
    current: str = SCHEMA_VERSION,
) -> dict[str, Any]:
    """A document brought to the current version, step by step.

    Args:
        document: What was read.
        steps: Version to the next version and the function that makes the step; `MIGRATIONS` by default.
        current: Version to end at.

    Raises:
        BundleError: It says no version, a newer one, or an older one that no step leads from.

    Example:
        >>> steps = {"0.9": ("1.0", lambda old: {"name": old["title"]})}
        >>> migrated({"schema_version": "0.9", "title": "x"}, steps)
        {'name': 'x', 'schema_version': '1.0'}
    """
    steps = MIGRATIONS if steps is None else steps
    if not isinstance(document, dict):
        raise BundleError(f"{MANIFEST} holds {type(document).__name__}; an object is needed.")
    wanted = _version(current)
    for _ in range(len(steps) + 1):
        version = document.get("schema_version")
        found = _version(version)
        if found is None or not isinstance(version, str):
            raise BundleError(
                f"{MANIFEST}: schema_version is {str(version)[:40]!r}; a version like {current!r} is needed."
            )
        assert wanted is not None
        if found > wanted:
            raise BundleError(
                f"the bundle has schema version {version}, and this QCascade reads up to {current}. "
                f"Install a newer one (pip install --upgrade qcascade), by which it was written: "
                f"{str(document.get('producer'))[:80]}."
            )
        if found == wanted:
            return dict(document)
        if version not in steps:
            break
        following, step = steps[version]
        try:
            document = {**step(document), "schema_version": following}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise BundleError(f"{MANIFEST} of schema version {version} cannot be migrated: {error!r}.") from error
    raise BundleError(
        f"the bundle has schema version {document.get('schema_version')}; {', '.join([*steps, current])} can be read here. "
        "Export it again."
    )


def _version(text: Any) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text) if isinstance(text, str) else None
    return None if match is None else (int(match[1]), int(match[2]))


def _check_files(manifest: Manifest) -> None:
    listed = {entry.path for entry in manifest.files}
    if MANIFEST in {path.casefold() for path in listed}:
        raise BundleError(f"{MANIFEST} lists itself; it holds the checksums of all other files.")
    needed = [MODEL, WEIGHTS, REPORT]
    for kernel in manifest.kernels:
        for circuit in kernel.circuits:
            for files in (circuit.designed, circuit.compiled):
                if files is not None:
                    needed += [files.pytket, *([] if files.qasm is None else [files.qasm])]
    if missing := [path for path in needed if path not in listed]:
        raise BundleError(f"{MANIFEST} lists no file {missing[0]!r}, which the bundle needs.")


def _twice(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
