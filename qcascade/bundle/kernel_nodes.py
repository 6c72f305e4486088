"""The hybrid as a graph in which every kernel is one opaque operator.

What comes in: a hybrid. What goes out: a module of flat tensor inputs and outputs over the same parameters, in evaluation
mode and simulated exactly, whose kernels record what they are called with and leave one node of domain `qcascade` each
when torch exports the module. The hybrid itself is not touched.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.utils import _pytree as pytree

from qcascade.bundle.manifest import DOMAIN
from qcascade.capture.runnable import Runnable
from qcascade.errors import BundleError
from qcascade.hybrid import HybridModule
from qcascade.interface import Interface
from qcascade.kernels.base import QuantumKernel

PLACE = "kernel"  # metadata of a node: which kernel it is
DERIVED = "evaluated"  # part of a stand-in that holds tensors made from the kernel's weights


@dataclass(frozen=True, slots=True)
class Call:
    """What a kernel was called with: (dtype, sizes) of every tensor input, None where there is none.

    A size is a number where it is fixed and ("name of the symbol", hint) where it is free.
    """

    inputs: tuple[tuple[torch.dtype, tuple[int | tuple[str, int], ...]] | None, ...]


class Record:
    """What a forward leaves behind; no container that torch knows, since it puts attributes back that a forward changed."""

    def __init__(self) -> None:
        self.call = Call(())
        self.outputs: tuple[str, ...] = ()


UNCAPTURED = (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, AssertionError)


def uncaptured(what: str, error: Exception) -> BundleError:
    """Why torch does not capture a kernel, with the kernel's name."""
    reason = " ".join(str(error).split())[:300]
    return BundleError(
        f"{what} cannot be captured by torch.export, so it has no body of ONNX operators: {type(error).__name__}: {reason}. "
        "Its forward must be tensor operations alone, without conditions on their values."
    )


class KernelNode(nn.Module):
    """Stands in for a kernel while torch exports.

    Args:
        path: Where the kernel is in the hybrid.
        kernel: The kernel, in evaluation mode and simulated exactly.

    Attributes:
        kernel: The kernel.
        body: What computes the same.
        prefix: Before the names of the body's tensors in the stand-in: none where it is the kernel itself.
        names: The body's parameters and buffers, each once.
    """

    kernel: QuantumKernel
    body: nn.Module
    record: Record

    def __init__(self, path: str, kernel: QuantumKernel) -> None:
        super().__init__()
        body = kernel.evaluated()
        for table in ("_parameters", "_buffers", "_modules"):
            self.__dict__[table] = dict(kernel.__dict__[table])
        self.prefix = ""
        if body is not kernel:
            self._modules[DERIVED] = body
            self.prefix = f"{DERIVED}."
        self.path = path
        self.__dict__["kernel"], self.__dict__["body"] = kernel, body  # no submodules: their tensors are in the tables
        self.names = tuple(name for name, _ in (*body.named_parameters(), *body.named_buffers()))
        self.__dict__["record"] = Record()

    @property
    def call(self) -> Call:
        """What the kernel was called with last."""
        return self.record.call

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """One node of domain `qcascade`; its output has the shape and dtype of the kernel's."""
        weights = [_attribute(self, self.prefix + name) for name in self.names]  # torch exchanges them while it exports
        self.record.call = Call(tuple(None if t is None else (t.dtype, tuple(map(_size, t.shape))) for t in inputs))
        with disable_proxy_modes_tracing():
            mode = next((t.fake_mode for t in inputs if isinstance(t, FakeTensor)), None)
            fake = dict(zip(self.names, (w if mode is None else mode.from_tensor(w) for w in weights), strict=True))
            try:
                result = torch.func.functional_call(self.body, fake, inputs)
            except UNCAPTURED as error:
                raise uncaptured(f"kernel {self.path} ({type(self.kernel).__name__})", error) from error
        if not isinstance(result, Tensor):
            raise BundleError(f"kernel {self.path} returns {type(result).__name__}; one tensor can be exported.")
        found: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::Kernel",
            [t for t in inputs if t is not None] + weights,
            dtype=result.dtype,
            shape=tuple(result.shape),
            version=1,
            metadata_props={PLACE: self.path},
        )
        return found


def _attribute(module: Any, path: str) -> Tensor:
    for part in path.split("."):
        module = getattr(module, part)
    assert isinstance(module, Tensor)
    return module


def _size(size: int | torch.SymInt) -> int | tuple[str, int]:
    if isinstance(size, int):
        return size
    return (str(size.node.expr), int(size.node.hint))


class Evaluation(nn.Module):
    """A hybrid's evaluation over flat tensors, its kernels opaque.

    Args:
        hybrid: What is evaluated; its tensors are shared.

    Attributes:
        nodes: The stand-ins by path of their kernel.
        record: Names of the last call's results.
    """

    nodes: dict[str, KernelNode]
    record: Record
    _runnable: Runnable
    _interface: Interface

    def __init__(self, hybrid: HybridModule) -> None:
        super().__init__()
        state = hybrid._state
        paths = set(state.kernels.values())
        self.__dict__["nodes"] = dict[str, KernelNode]()
        self.__dict__["record"] = Record()
        shadow = _Shadows(paths, self.nodes).of(hybrid, "")
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[table] = getattr(shadow, table)
        for name, value in state.root.__dict__.items():  # the graphs' own constants
            if name not in self.__dict__ and not isinstance(value, Tensor):
                self.__dict__[name] = value
        self.__dict__["_runnable"], self.__dict__["_interface"] = state.evaluation, state.interface
        self.eval()

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """The tensors among the results, in order."""
        interface = self._interface
        leaves, given = pytree.tree_flatten(interface.example)[0], iter(tensors)
        leaves = [next(given) if leaf is None else leaf for leaf in leaves]
        device = next((t.device for t in tensors), torch.device("cpu"))
        flat = self._runnable._function(self, *leaves, device)
        structure = self._runnable.output
        tree = flat if structure is None else pytree.tree_unflatten(flat, structure)
        found = [(path, leaf) for path, leaf in pytree.tree_flatten_with_path(tree)[0] if isinstance(leaf, Tensor)]
        self.record.outputs = _names([path for path, _ in found])
        return [leaf for _, leaf in found]


class _Shadows:
    """Module trees over the same numbers, in evaluation mode, without gradients: torch exports no tensor that has one.

    Args:
        kernels: Paths of those that stand-ins take the place of.
        nodes: Where the stand-ins are put, by path.
    """

    def __init__(self, kernels: set[str], nodes: dict[str, KernelNode]) -> None:
        self._kernels, self._nodes = kernels, nodes
        self._modules: dict[int, nn.Module] = {}
        self._tensors: dict[int, Tensor] = {}

    def of(self, module: nn.Module, path: str) -> nn.Module:
        """The shadow of the module at a path; a module in two places has one."""
        if id(module) in self._modules:
            return self._modules[id(module)]
        if path in self._kernels:
            plain = self._copy(module, None)
            assert isinstance(plain, QuantumKernel)
            plain.executor = None
            made: nn.Module = KernelNode(path, plain)
            self._nodes[path] = made  # type: ignore[assignment]
        else:
            made = self._copy(module, path)
        self._modules[id(module)] = made
        return made

    def _copy(self, module: nn.Module, path: str | None) -> nn.Module:
        """A module and, where it has a path, its children's shadows, else copies of them."""
        made = nn.Module() if path == "" else copy.copy(module)
        for table in ("_parameters", "_buffers"):
            made.__dict__[table] = {name: self._plain(tensor) for name, tensor in module.__dict__[table].items()}
        made.__dict__["_non_persistent_buffers_set"] = set(module._non_persistent_buffers_set)
        made.__dict__["training"] = False
        made.__dict__["_modules"] = {
            name: None if child is None else self._child(child, name, path) for name, child in module._modules.items()
        }
        return made

    def _child(self, child: nn.Module, name: str, path: str | None) -> nn.Module:
        return self._copy(child, None) if path is None else self.of(child, f"{path}.{name}" if path else name)

    def _plain(self, tensor: Tensor | None) -> Tensor | None:
        """The same numbers, a parameter where it was one; tied tensors stay tied."""
        if tensor is None:
            return None
        if id(tensor) not in self._tensors:
            plain = tensor.detach()
            self._tensors[id(tensor)] = nn.Parameter(plain, False) if isinstance(tensor, nn.Parameter) else plain
        return self._tensors[id(tensor)]


def _names(paths: list[tuple[Any, ...]]) -> tuple[str, ...]:
    """Names of results by their places: keys and attributes by name, positions by number."""
    names: list[str] = []
    for path in paths:
        words = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
        name = ".".join(words) or "output"
        names.append(f"output_{name}" if name[0].isdigit() else name)
    return tuple(names)
