"""Telemetry under other people's loops: callbacks of Hugging Face's Trainer and of Lightning.

Both libraries are optional and imported only here. A step is one step of the optimizer under Trainer, gradient accumulation
included, and one batch under Lightning; evaluation in between belongs to no step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qcascade.errors import ExecutionError

if TYPE_CHECKING:
    from qcascade.dispatch.telemetry import Telemetry


def trainer_callback(telemetry: Telemetry) -> Any:
    """For `Trainer(callbacks=[…])`.

    Raises:
        ExecutionError: transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise ExecutionError("trainer_callback() needs transformers: pip install 'qcascade[hf]'.") from error

    class TrainerTelemetry(TrainerCallback):  # type: ignore[misc]
        """Marks steps."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            """Before the first forward pass of a step."""
            telemetry.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            """After the optimizer."""
            telemetry.end()

    return TrainerTelemetry()


def lightning_callback(telemetry: Telemetry) -> Any:
    """For `lightning.Trainer(callbacks=[…])`.

    Raises:
        ExecutionError: Lightning is not installed.
    """
    try:
        from lightning.pytorch.callbacks import Callback
    except ImportError as error:
        raise ExecutionError("lightning_callback() needs Lightning: pip install lightning.") from error

    class LightningTelemetry(Callback):
        """Marks steps."""

        def on_train_batch_start(self, *_: Any, **__: Any) -> None:
            """Before the forward pass."""
            telemetry.begin()

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            """After the optimizer."""
            telemetry.end()

    return LightningTelemetry()
