"""The captured model: its graphs with provenance, and what its inputs must look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from qcascade.plan import CaptureRecord


@dataclass(frozen=True, slots=True)
class SizeRule:
    """Sizes of a free dimension that a graph holds for: `minimum` and more, each `remainder` more than a multiple of `step`."""

    minimum: int = 1
    step: int = 1
    remainder: int = 0

    def accepts(self, size: int) -> bool:
        """Whether a size follows the rule; 0 and 1 do, as export says nothing of them.

        Example:
            >>> [n for n in range(2, 20) if SizeRule(8, 4).accepts(n)]
            [8, 12, 16]
        """
        return size < 2 or (size >= self.minimum and size % self.step == self.remainder)

    def following(self, size: int) -> int:
        """The next size that follows the rule.

        Example:
            >>> SizeRule(8, 4).following(9)
            12
        """
        least = max(size, self.minimum)
        return least + (self.remainder - least) % self.step

    def __str__(self) -> str:
        parts = [f"at least {self.minimum}"] if self.minimum > 2 else []
        if self.step > 1:
            parts.append(
                f"a multiple of {self.step}"
                if not self.remainder
                else f"{self.remainder} more than a multiple of {self.step}"
            )
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One tensor input: its name, dtype, and shape with None where a dimension is free.

    `maximum` bounds free dimensions, and `rules` says which sizes the graphs hold for (None, or no rules: any); `ids_below`
    bounds the values of token ids. Inputs whose `batch`, the leading size of the example, is the same are taken to share one
    batch: graphs do not tie all that belong together (a mask, say).
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]
    maximum: tuple[int | None, ...]
    ids_below: int | None = None
    batch: int | None = None
    rules: tuple[SizeRule | None, ...] = ()  # by dimension

    @property
    def batched(self) -> bool:
        """Whether its first dimension is a free one, the batch."""
        return bool(self.shape) and self.shape[0] is None


@dataclass(frozen=True, eq=False)
class CapturedModel:
    """A model's graphs in evaluation and in training mode, over one private copy of its parameters.

    Every `get_attr` node names a parameter, buffer or constant by its dotted path in `model` (constants: in the graph
    module alone). Every node carries `meta["val"]` (fake tensor with symbolic shape) and `meta["nn_module_stack"]`.
    """

    model: nn.Module  # private deep copy of the user's model; never run again
    eval_graph: fx.GraphModule
    train_graph: fx.GraphModule | None  # None: could not be captured (a note says why)
    record: CaptureRecord
    inputs: tuple[InputSpec, ...]
    example_args: tuple[Any, ...]  # positional-only and variadic ones; everything else is in `example_kwargs`
    example_kwargs: dict[str, Any]  # in the order of the signature
    path: str = ""  # where `model` is in the whole model, where that is captured module by module
    final: bool = True  # whether its result is the whole model's
    shared: Mapping[str, str] = field(
        default_factory=dict
    )  # tensors of `model` that code outside it uses too, and where

    @property
    def parts(self) -> tuple[CapturedModel, ...]:
        """The graphs of the model: itself."""
        return (self,)


@dataclass(frozen=True, slots=True)
class Unseen:
    """Attention or a lookup that runs outside every part: in which module's own code, and why that is no part."""

    path: str
    pattern: str
    reason: str


@dataclass(frozen=True, eq=False)
class CapturedModules:
    """A model whose own forward keeps running: some of its modules are captured, each with graphs of its own."""

    model: nn.Module  # private deep copy of the user's model
    parts: tuple[CapturedModel, ...]  # in the order of their first calls; none lies inside another
    unseen: tuple[Unseen, ...]
    record: CaptureRecord
    example_args: tuple[Any, ...]
    example_kwargs: dict[str, Any]
    written: frozenset[str] = frozenset()  # names of parameters that its forward writes to
