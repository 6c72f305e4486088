"""What torch logs while it is tried what it can do, and is told in our own words or not at all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def loggers_at(level: int, *names: str) -> Iterator[None]:
    """Loggers at another level, for a while.

    Example:
        >>> with loggers_at(logging.CRITICAL, "torch.export"):
        ...     logging.getLogger("torch.export").level == logging.CRITICAL
        True
    """
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, former in zip(loggers, before, strict=True):
            logger.setLevel(former)
