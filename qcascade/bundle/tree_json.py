"""The module tree of a hybrid as JSON, and back: which parts there are, what they are called, which tensors they hold.

What comes in: a hybrid's tree. What goes out: its modules, children before parents, a shared one once. Childless
modules of torch.nn keep their class and their plain attributes, so that what looks at classes (weight decay by layer
type, say) still can; kernels are named in the registry and rebuilt from their arguments; all others hold their parts.
Tensors are named as in the weights file, a tied one by one name at all its places.

Reading is strict: classes come from torch.nn as imported, attributes are plain values that hide no method, names are
such as a module can have, the number of paths is bounded, and tensors have the shapes that the kernels need. Kernels
are built on the meta device, so that nothing is allocated for what a file merely says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, JsonValue, StringConstraints
from torch import Tensor, nn

from qcascade.bundle.graph_json import PART
from qcascade.bundle.graph_part import Part
from qcascade.containers import CONTAINERS, container_name
from qcascade.errors import BundleError, PlanError
from qcascade.kernels import KERNELS, QuantumKernel
from qcascade.kernels.base import MAX_GATES

MAX_PATHS = 200_000
MAX_LEVELS = 64
_PART = re.compile(PART)
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_OWN = frozenset(nn.Module().__dict__)
_SPACE = "torch.nn.modules."

Name = Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class TensorDocument(Part):
    """A parameter or buffer: its name in the module (in a kernel its path there) and in the weights file."""

    name: Name
    tensor: Name | None  # null where the module has none, such as a bias left out
    requires_grad: bool = False
    persistent: bool = True  # False: a buffer outside state_dict


class ModuleDocument(Part):
    """One module."""

    kind: Literal["container", "leaf", "kernel"]
    training: bool
    name: Annotated[str, StringConstraints(max_length=200)] = (
        ""  # a container's in CONTAINERS, a leaf's class below torch.nn.modules, a kernel's name
    )
    attributes: dict[str, JsonValue] = Field(default_factory=dict)  # a leaf's, or a kernel's arguments
    parameters: tuple[TensorDocument, ...] = ()
    buffers: tuple[TensorDocument, ...] = ()
    children: tuple[tuple[str, int | None], ...] = ()  # by number; null where the module has None
    modes: dict[str, bool] = Field(default_factory=dict)  # parts of a kernel in another mode than the kernel's


def tree_document(root: nn.Module, names: Mapping[int, str]) -> tuple[ModuleDocument, ...]:
    """The modules of a tree, the root last.

    Args:
        root: The hybrid, or any tree of containers, leaves and kernels.
        names: Names in the weights file by identity of the tensor.

    Raises:
        BundleError: A part has no form in a bundle.
    """
    found: list[ModuleDocument] = []
    _visit(root, names, {}, found, is_root=True)
    return tuple(found)


def _visit(
    module: nn.Module, names: Mapping[int, str], done: dict[int, int], found: list[ModuleDocument], *, is_root: bool
) -> int:
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, QuantumKernel):
        made = _kernel_document(module, names)
    else:
        children = [
            (_checked_name(name), None if child is None else _visit(child, names, done, found, is_root=False))
            for name, child in module._modules.items()
        ]
        attributes = None if is_root else _plain_leaf(module)
        made = ModuleDocument(
            kind="container" if attributes is None else "leaf",
            training=module.training,
            name=container_name(module) if attributes is None else _class_name(type(module)),
            attributes=attributes or {},
            parameters=tuple(
                _tensor_document(_checked_name(name), tensor, names) for name, tensor in module._parameters.items()
            ),
            buffers=tuple(
                _tensor_document(
                    _checked_name(name), tensor, names, persistent=name not in module._non_persistent_buffers_set
                )
                for name, tensor in module._buffers.items()
            ),
            children=tuple(children),
        )
    done[id(module)] = len(found)
    found.append(made)
    return done[id(module)]


def _kernel_document(kernel: QuantumKernel, names: Mapping[int, str]) -> ModuleDocument:
    name = type(kernel).kernel_name
    try:
        known, arguments = KERNELS.get(name), dict(kernel.arguments())
        with torch.device("meta"):
            again = known.from_arguments(arguments)
    except PlanError as error:
        raise BundleError(f"kernel {name!r} cannot be exported: {error}") from error
    if known is not type(kernel) or _outline(again) != _outline(kernel):
        raise BundleError(
            f"kernel {name!r} cannot be exported: its arguments do not rebuild it ({type(kernel).__name__} with "
            f"{', '.join(_outline(kernel))}). Its parts must be as its constructor makes them."
        )
    return ModuleDocument(
        kind="kernel",
        training=kernel.training,
        name=name,
        attributes=arguments,
        parameters=tuple(_tensor_document(n, t, names) for n, t in kernel.named_parameters(remove_duplicate=False)),
        buffers=tuple(_tensor_document(n, t, names) for n, t in kernel.named_buffers(remove_duplicate=False)),
        modes={path: part.training for path, part in kernel.named_modules() if part.training != kernel.training},
    )


def _outline(kernel: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = (*kernel.named_parameters(remove_duplicate=False), *kernel.named_buffers(remove_duplicate=False))
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _tensor_document(
    name: str, tensor: Tensor | None, names: Mapping[int, str], *, persistent: bool = True
) -> TensorDocument:
    if tensor is None:
        return TensorDocument(name=name, tensor=None, persistent=persistent)
    return TensorDocument(
        name=name, tensor=names[id(tensor)], requires_grad=tensor.requires_grad, persistent=persistent
    )


def _plain_leaf(module: nn.Module) -> dict[str, Any] | None:
    """The attributes of a childless torch.nn module, or None where it is none or holds more than plain values."""
    if module._modules or not type(module).__module__.startswith(_SPACE):
        return None
    attributes = {}
    for name, value in module.__dict__.items():
        if name in _OWN:
            continue
        plain = _plain(value)
        if plain is _NOT_PLAIN or not _may_be_set(type(module), name):
            return None
        attributes[name] = plain
    return attributes


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    """A value as JSON; a tuple is {"tuple": […]}."""
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    if isinstance(value, (list, tuple)) and all(type(item) in (int, float, bool, str) for item in value):
        return list(value) if isinstance(value, list) else {"tuple": list(value)}
    return _NOT_PLAIN


def _unplain(value: Any) -> Any:
    if isinstance(value, dict) and list(value) == ["tuple"] and isinstance(value["tuple"], list):
        return tuple(value["tuple"])
    return value


def _may_be_set(kind: type[nn.Module], name: str) -> bool:
    """Whether an attribute hides nothing of nn.Module's and no method."""
    return (
        _ATTRIBUTE.fullmatch(name) is not None
        and not name.startswith("__")
        and name not in _OWN
        and not hasattr(nn.Module, name)
        and not callable(getattr(kind, name, None))
        and not isinstance(getattr(kind, name, None), property)
    )


def _class_name(kind: type[nn.Module]) -> str:
    return f"{kind.__module__.removeprefix(_SPACE)}.{kind.__qualname__}"


def _class_of(name: str) -> type[nn.Module]:
    module, _, kind = name.rpartition(".")
    found = getattr(sys.modules.get(_SPACE + module), kind, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module) and _class_name(found) == name):
        raise BundleError(f"graph.json: {name[:80]!r} is no module of torch.nn.")
    return found


def _checked_name(name: str) -> str:
    """A name that a module, parameter or buffer can have."""
    if not _PART.fullmatch(name) or name.startswith("__") or hasattr(nn.Module, name) or name in _OWN:
        raise BundleError(
            f"a part of the model is called {name[:80]!r}; in a bundle names hold letters, digits and _ :/+=- only, and are none "
            "of nn.Module's own."
        )
    return name


def tree_of(documents: tuple[ModuleDocument, ...], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The tree of a document: the root, with tensors in place.

    Args:
        documents: What was read.
        tensors: Of the weights file, by name; they are taken as they are.

    Raises:
        BundleError: It is no tree that a bundle may hold, or a tensor is missing or of another shape.
    """
    _check_size(documents)
    made: list[nn.Module] = []
    stored = _Tensors(tensors)
    gates = 0
    for document in documents:
        if document.kind == "kernel":
            kernel = _kernel_of(document, stored)
            gates += type(kernel).gates(kernel.arguments())
            if gates > 8 * MAX_GATES:
                raise BundleError(f"graph.json: the kernels' circuits have more than {8 * MAX_GATES} gates.")
            made.append(kernel)
        else:
            made.append(_module_of(document, made, stored))
    if documents[-1].kind != "container":
        raise BundleError("graph.json: the last module is the root and holds the others.")
    return made[-1]


def _check_size(documents: tuple[ModuleDocument, ...]) -> None:
    """No child after its parent, every module in the tree, and neither too deep nor too many paths."""
    paths, levels, used = list[int](), list[int](), set[int]()
    for number, document in enumerate(documents):
        below = [child for _, child in document.children if child is not None]
        if any(not 0 <= child < number for child in below):
            raise BundleError("graph.json: a module holds itself, or one that comes after it.")
        used.update(below)
        held = max(1, len(document.parameters) + len(document.buffers))
        paths.append(min(2**62, held + sum(paths[child] for child in below)))
        levels.append(1 + max((levels[child] for child in below), default=0))
    if not documents or len(used) != len(documents) - 1:
        raise BundleError("graph.json: the modules make no tree.")
    if paths[-1] > MAX_PATHS or levels[-1] > MAX_LEVELS:
        raise BundleError(f"graph.json: the module tree has more than {MAX_PATHS} paths or {MAX_LEVELS} levels.")


class _Tensors:
    """Parameters and buffers made of the file's tensors, each once."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.made: dict[str, Tensor] = {}

    def get(self, entry: TensorDocument, *, parameter: bool) -> Tensor | None:
        if entry.tensor is None:
            return None
        if entry.tensor not in self.tensors:
            raise BundleError(f"the weights file has no tensor {entry.tensor[:80]!r}.")
        found = self.made.get(entry.tensor)
        if found is None:
            tensor = self.tensors[entry.tensor]
            if entry.requires_grad and not (tensor.is_floating_point() or tensor.is_complex()):
                raise BundleError(f"graph.json: {entry.tensor!r} is {tensor.dtype} and can have no gradient.")
            found = (
                nn.Parameter(tensor, entry.requires_grad) if parameter else tensor.requires_grad_(entry.requires_grad)
            )
            self.made[entry.tensor] = found
        elif isinstance(found, nn.Parameter) < parameter or found.requires_grad != entry.requires_grad:
            raise BundleError(f"graph.json: the places of {entry.tensor!r} disagree.")
        return found


def _module_of(document: ModuleDocument, made: list[nn.Module], stored: _Tensors) -> nn.Module:
    module: nn.Module
    if document.kind == "container":
        if document.name not in CONTAINERS or document.attributes or document.modes:
            raise BundleError("graph.json: a container has neither a class of its own nor attributes.")
        module = CONTAINERS[document.name]()
    else:
        if document.children or document.modes:
            raise BundleError("graph.json: a leaf has no children.")
        kind = _class_of(document.name)
        module = kind.__new__(kind)
        nn.Module.__init__(module)
        for name, value in document.attributes.items():
            plain = _unplain(value)
            if _plain(plain) != value or not _may_be_set(kind, name):
                raise BundleError(f"graph.json: {document.name} cannot have the attribute {name[:64]!r}.")
            module.__dict__[name] = plain
    names = [e.name for e in (*document.parameters, *document.buffers)] + [name for name, _ in document.children]
    if len(set(names)) != len(names):
        raise BundleError("graph.json: a module has two parts of one name.")
    for name in names:
        _checked_name(name)
    module.training = document.training
    for entry in document.parameters:
        parameter = stored.get(entry, parameter=True)
        assert parameter is None or isinstance(parameter, nn.Parameter)
        module._parameters[entry.name] = parameter
    for entry in document.buffers:
        module._buffers[entry.name] = stored.get(entry, parameter=False)
        if not entry.persistent:
            module._non_persistent_buffers_set.add(entry.name)
    module._modules.update({name: None if child is None else made[child] for name, child in document.children})
    return module


def _kernel_of(document: ModuleDocument, stored: _Tensors) -> QuantumKernel:
    if document.children:
        raise BundleError("graph.json: a kernel's parts are its own.")
    try:
        kind = KERNELS.get(document.name)
        with torch.device("meta"):
            kernel = kind.from_arguments(document.attributes)
    except PlanError as error:
        raise BundleError(f"graph.json: {error}") from error
    parts = dict(kernel.named_modules())
    if not set(document.modes) <= set(parts):
        raise BundleError(f"graph.json: {document.name} has no such parts.")
    for path, part in parts.items():
        part.training = document.modes.get(path, document.training)
    for parameter, entries, own in (
        (True, document.parameters, dict(kernel.named_parameters(remove_duplicate=False))),
        (False, document.buffers, dict(kernel.named_buffers(remove_duplicate=False))),
    ):
        if [entry.name for entry in entries] != list(own):
            raise BundleError(
                f"graph.json: {document.name} has {', '.join(own) or 'nothing'} as {'parameters' if parameter else 'buffers'}."
            )
        for entry in entries:
            tensor = stored.get(entry, parameter=parameter)
            if tensor is None or tensor.shape != own[entry.name].shape:
                raise BundleError(
                    f"the weights file: {document.name} needs {entry.name} of shape {list(own[entry.name].shape)}, "
                    f"not {None if tensor is None else list(tensor.shape)}."
                )
            if tensor.is_floating_point() != own[entry.name].is_floating_point():
                raise BundleError(f"the weights file: {entry.name} of {document.name} is {tensor.dtype}.")
            owner, _, name = entry.name.rpartition(".")
            (parts[owner]._parameters if parameter else parts[owner]._buffers)[name] = tensor
    return kernel
