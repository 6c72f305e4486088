"""How a hybrid is called: arguments checked against what was captured, put in the graphs' order, and cut along the batch.

What comes in: a call's arguments, or the outputs of its parts. What goes out: the leaves that the graphs take, or the whole output.
A call that the captured graph cannot follow is one `ExecutionError`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from qcascade.capture.graph import InputSpec
from qcascade.capture.inputs import arranged
from qcascade.engine import watched
from qcascade.errors import ExecutionError


@dataclass(slots=True)
class Interface:
    """How a hybrid is called: the original's signature and what the captured example says of each argument."""

    signature: inspect.Signature
    inputs: tuple[InputSpec, ...]
    example: tuple[tuple[Any, ...], dict[str, Any]]  # tensors are replaced by None
    fills_mask: bool = True  # a left-out attention_mask is one of ones, as Hugging Face's models have it
    structure: pytree.TreeSpec = field(init=False)

    def __post_init__(self) -> None:
        leaves, self.structure = pytree.tree_flatten(self.example)
        self.example = pytree.tree_unflatten([None if isinstance(v, Tensor) else v for v in leaves], self.structure)

    def leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The call's arguments flattened in the order of the graph, checked.

        Raises:
            ExecutionError: The call differs from what was captured in a way that the graph cannot follow.
        """
        try:
            given = arranged(self.signature, args, kwargs)
        except TypeError as error:
            raise ExecutionError(f"the call does not fit the model's signature: {error}.") from error
        given = (given[0], self._completed(given[1]))
        leaves, structure = pytree.tree_flatten(given)
        if structure != self.structure and (ordered := self._ordered(given)) is not None:
            leaves = ordered
        elif structure != self.structure:
            raise ExecutionError(
                f"the arguments are nested otherwise than in the example: {structure} was given, {self.structure} was captured. "
                "Compile with example_inputs of the form you call with."
            )
        expected, _ = pytree.tree_flatten(self.example)
        specs = iter(self.inputs)
        sizes: dict[int | None, tuple[int, str]] = {}
        for place, (leaf, captured) in enumerate(zip(leaves, expected, strict=True)):
            if captured is None:
                leaves[place] = _checked(leaf, next(specs), sizes)
            elif isinstance(leaf, Tensor):
                raise ExecutionError(
                    f"an argument is a tensor; the model was captured with {captured!r}. Compile with a tensor in example_inputs."
                )
            elif not _same(leaf, captured):
                raise ExecutionError(
                    f"an argument is {leaf!r}; the model was captured with {captured!r}. Compile with example_inputs that hold {leaf!r}."
                )
        return leaves

    def _ordered(self, given: Any) -> list[Any] | None:
        """The leaves of arguments that differ from the example in the order of dictionaries alone; None of others."""
        try:
            leaves = self.structure.flatten_up_to(given)
        except ValueError:
            return None
        return leaves if all(pytree.tree_structure(leaf).is_leaf() for leaf in leaves) else None

    def _completed(self, given: dict[str, Any]) -> dict[str, Any]:
        """The named arguments in captured order; constants of the example and a full attention mask may be left out (`fills_mask`)."""
        captured = self.example[1]
        for name, value in given.items():
            if name not in captured and not _same(value, self._default(name)):
                raise ExecutionError(
                    f"argument {name!r} was not part of the example, which held {', '.join(captured)}. "
                    f"Compile with example_inputs that hold {name!r} too."
                )
        complete: dict[str, Any] = {}
        for name, value in captured.items():
            if name in given:
                if value is None and not isinstance(given[name], Tensor):
                    raise ExecutionError(f"{name} must be a tensor, got {type(given[name]).__name__}.")
                complete[name] = given[name]
            elif value is not None:
                complete[name] = value
            elif self.fills_mask and name == "attention_mask" and isinstance(given.get("input_ids"), Tensor):
                complete[name] = torch.ones_like(given["input_ids"])
            else:
                raise ExecutionError(
                    f"argument {name!r} is missing; the model was captured with it. Give a tensor for {name!r}."
                )
        return complete

    def _default(self, name: str) -> Any:
        parameter = self.signature.parameters.get(name)
        return inspect.Parameter.empty if parameter is None else parameter.default

    def rows(self, leaves: Sequence[Any]) -> int:
        """Examples of a call; 0 where no input has a batch."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        return max((len(t) for t, spec in zip(tensors, self.inputs, strict=True) if spec.batched), default=0)

    def parts(self, leaves: Sequence[Any], most: int) -> list[list[Any]]:
        """A call's arguments in at most so many parts along the batch."""
        rows = self.rows(leaves)
        count = min(most, rows)
        if count < 2:
            return [list(leaves)]
        parts: list[list[Any]] = [[] for _ in range(count)]
        specs = iter(self.inputs)
        for leaf in leaves:
            batched = isinstance(leaf, Tensor) and next(specs).batched
            pieces = leaf.tensor_split(count) if batched and len(leaf) == rows else [leaf] * count
            for part, piece in zip(parts, pieces, strict=True):
                part.append(piece)
        return parts


def _same(value: Any, captured: Any) -> bool:
    """Whether a plain value is the captured one; tensors, and arrays that compare entry by entry, are not."""
    if value is captured or isinstance(value, Tensor):
        return value is captured
    same = value == captured
    return getattr(same, "shape", ()) == () and bool(same)


def _checked(value: Any, spec: InputSpec, sizes: dict[int | None, tuple[int, str]]) -> Tensor:
    """A tensor argument, in the captured dtype where it is an integer one."""
    if not isinstance(value, Tensor):
        raise ExecutionError(f"{spec.name} must be a tensor, got {type(value).__name__}.")
    shape = [("any" if size is None else size) for size in spec.shape]
    if value.dim() != len(spec.shape):
        raise ExecutionError(f"{spec.name} has shape {list(value.shape)}; {shape} is accepted.")
    for axis, (given, fixed, most) in enumerate(zip(value.shape, spec.shape, spec.maximum, strict=True)):
        if fixed is not None and given != fixed:
            raise ExecutionError(
                f"{spec.name} has shape {list(value.shape)}; {shape} is accepted (fixed by the captured model)."
            )
        if most is not None and given > most:
            raise ExecutionError(
                f"{spec.name} has shape {list(value.shape)}; dimension {axis} can be at most {most}. Truncate it."
            )
    for axis, rule in enumerate(spec.rules):
        if rule is not None and not rule.accepts(value.shape[axis]):
            raise ExecutionError(
                f"{spec.name} has shape {list(value.shape)}; dimension {axis} must be {rule}: the model's code asks for its size, and "
                "was captured for the example's. Pad, or compile with example_inputs of that size."
            )
    if spec.batched:
        rows, first = sizes.setdefault(spec.batch, (int(value.shape[0]), spec.name))
        if value.shape[0] not in (rows, 1):
            raise ExecutionError(
                f"{spec.name} has a batch of {value.shape[0]} and {first} one of {rows}; give one batch size "
                "(inputs with batches of their own need example_inputs whose batch sizes differ)."
            )
    if _kind(value.dtype) != _kind(spec.dtype):
        raise ExecutionError(
            f"{spec.name} is {value.dtype}; {_kind(spec.dtype)} values like {spec.dtype} are accepted."
        )
    checked: Tensor = value.to(spec.dtype) if _kind(spec.dtype) == "integer" else value
    if spec.ids_below is not None and value.numel() and not value.is_meta and not watched():
        low, high = (int(v) for v in value.aminmax())
        if low < 0 or high >= spec.ids_below:
            raise ExecutionError(
                f"{spec.name} holds the token id {low if low < 0 else high}; ids from 0 to {spec.ids_below - 1} are accepted. "
                "Check that the tokenizer belongs to the model."
            )
    return checked


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "boolean"
    if dtype.is_complex:
        return "complex"
    return "floating-point" if dtype.is_floating_point else "integer"


def joined(results: Sequence[Any], rows: Sequence[int]) -> Any:
    """Outputs of parts as those of the whole batch.

    Raises:
        ExecutionError: An output has no batch.
    """
    flat = [pytree.tree_flatten(result) for result in results]
    leaves = []
    for values in zip(*(leaves for leaves, _ in flat), strict=True):
        if not isinstance(values[0], Tensor):
            leaves.append(values[0])
            continue
        for value, count in zip(values, rows, strict=True):
            if value.dim() == 0 or len(value) != count:
                raise ExecutionError(
                    f"an output has shape {list(value.shape)} for {count} examples, so that micro-batches cannot be put together; "
                    "compute the loss outside of the model, or use microbatches=1."
                )
        leaves.append(torch.cat(values))
    return pytree.tree_unflatten(leaves, flat[0][1])
