"""How often the body of a Scan runs, proved from the graph before anything runs it.

What comes in: a model's nodes in order. A Scan takes one tensor and gives one, and goes along its first axis. Its turns are at most
`MAX_TURNS` where that tensor is made by Reshape to a shape whose first size is a number that Clip holds between 1 and `MAX_TURNS`:

    count = Reshape(Clip(.., low, high), [1]);  shape = Concat(count, ..);  x = Reshape(.., shape);  Scan(x)

with constants low ≥ 1 and high ≤ `MAX_TURNS`. Refused: every other Scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qcascade.errors import BundleError

if TYPE_CHECKING:
    from onnx import NodeProto

MAX_TURNS = 256


class Turns:
    """What is known of tensors that lead to a Scan; nodes are shown to it in order."""

    def __init__(self) -> None:
        self._clipped: set[str] = set()
        self._counts: set[str] = set()
        self._shapes: set[str] = set()
        self._bounded: set[str] = set()

    def see(self, node: NodeProto, constants: Mapping[str, list[int]]) -> None:
        """Take note of a node.

        Args:
            node: The next one.
            constants: Values of small integer constants by name.
        """
        if node.domain or len(node.output) != 1 or not node.input:
            return
        first, made = node.input[0], node.output[0]
        others = [constants.get(name) for name in node.input[1:]]
        match node.op_type:
            case "Clip" if len(others) == 2 and all(bound is not None and len(bound) == 1 for bound in others):
                low, high = (bound[0] for bound in others if bound)
                if 1 <= low <= high <= MAX_TURNS:
                    self._clipped.add(made)
            case "Reshape" if first in self._clipped and others == [[1]]:
                self._counts.add(made)
            case "Reshape" if len(node.input) == 2 and node.input[1] in self._shapes:
                self._bounded.add(made)
            case "Concat" if first in self._counts:
                self._shapes.add(made)

    def check(self, node: NodeProto, here: str) -> None:
        """Refuse a Scan whose turns are not bounded in this way.

        Raises:
            BundleError: It is one.
        """
        wrong = [a.name for a in node.attribute if a.name not in ("body", "num_scan_inputs")]
        counts = [a.i for a in node.attribute if a.name == "num_scan_inputs"]
        if (
            wrong
            or counts != [1]
            or len(node.input) != 1
            or len(node.output) != 1
            or node.input[0] not in self._bounded
        ):
            raise BundleError(
                f"{here} is no Scan along the first axis of one tensor, of at most {MAX_TURNS} turns that constants of the graph bound."
            )
