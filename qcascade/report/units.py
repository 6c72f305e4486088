"""Numbers with units, for people."""

from __future__ import annotations


def flops_text(flops: float | None) -> str:
    """FLOPs with a prefix.

    Example:
        >>> flops_text(1_234_000_000)
        '1.23 GFLOP'
    """
    return "? FLOP" if flops is None else f"{_scaled(flops, 1000)}FLOP"


def bytes_text(count: float | None) -> str:
    """Bytes with a prefix.

    Example:
        >>> bytes_text(2048)
        '2.05 kB'
    """
    return "? B" if count is None else f"{_scaled(count, 1000)}B"


def seconds_text(seconds: float | None) -> str:
    """Seconds with a prefix.

    Example:
        >>> seconds_text(0.00123)
        '1.23 ms'
    """
    if seconds is None:
        return "? s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def duration_text(seconds: float | None) -> str:
    """Seconds with a prefix, and long times in hours, days or years.

    Example:
        >>> duration_text(0.5), duration_text(21_700.0)
        ('500 ms', '6.03 h')
    """
    if seconds is None or seconds < 1000:
        return seconds_text(seconds)
    for unit, size in (("years", 31_557_600.0), ("days", 86_400.0), ("h", 3600.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1e4 * size else f"{seconds / size:.2e} {unit}"
    return f"{seconds / 60:.3g} min"


def number_text(value: float | None) -> str:
    """Three digits, and large numbers whole with separators.

    Example:
        >>> number_text(0.01234), number_text(63_312.4)
        ('0.0123', '63,312')
    """
    if value is None:
        return "?"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def _scaled(value: float, base: int) -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5:
            return f"{value:.3g} {prefix}"
        value /= base
    return f"{value:.3g} P"
