"""Settings under which torch traces and exports in less time, without what nobody here reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import fx


@contextlib.contextmanager
def quick_export() -> Iterator[None]:
    """Leave out what takes long while torch exports, or decomposes what it exported.

    Looking symbolic shapes up in the cache of stand-ins takes a third longer than computing them, and writing down where
    in the source each node came from takes a tenth.

    Example:
        >>> import torch
        >>> with quick_export():
        ...     program = torch.export.export(torch.nn.ReLU(), (torch.ones(2),))
        >>> any(node.stack_trace for node in program.graph.nodes)
        False
    """
    from torch._dynamo import config  # slow to import

    before, fx.config.do_not_emit_stack_traces = fx.config.do_not_emit_stack_traces, True
    try:
        with config.patch(fake_tensor_cache_enabled=False):
            yield
    finally:
        fx.config.do_not_emit_stack_traces = before
