"""What a study trains on."""

from __future__ import annotations

import torch

from qcascade.errors import ExecutionError


def checked_device(name: str) -> torch.device:
    """The device, if torch has it here.

    Raises:
        ExecutionError: It has not.
    """
    try:
        found = torch.device(name)
        if found.type == "meta":
            raise RuntimeError("it holds no values")
        return torch.zeros(1, device=found).device
    except (RuntimeError, AssertionError) as error:
        raise ExecutionError(
            f"device={name!r} cannot be used here ({error}); give cpu, or cuda where torch has it."
        ) from error
