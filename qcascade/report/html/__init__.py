"""Reports as one self-contained HTML file, and the builder that others make theirs with."""

from __future__ import annotations

from qcascade.report.html.page import (
    Markup,
    Page,
    Row,
    Section,
    Value,
    details,
    figure,
    listed,
    paragraph,
    png_figure,
    svg_figure,
    table,
)

__all__ = [
    "Markup",
    "Page",
    "Row",
    "Section",
    "Value",
    "details",
    "figure",
    "listed",
    "paragraph",
    "png_figure",
    "svg_figure",
    "table",
]
