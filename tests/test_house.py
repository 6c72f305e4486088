"""The layout: links, layers, and nothing but qcascade in what is installed."""

from __future__ import annotations

import ast
from importlib.metadata import packages_distributions
from pathlib import Path

import qcascade

ROOT = Path(qcascade.__file__).parent
ORDER = ["engine", "circuits", "kernels", "cost_models", "targets", "capture", "report", "passes"]
ALLOWED = {
    "circuits": set(),
    "engine": {"circuits"},
    "targets": set(),
    "routing": {"circuits", "targets", "engine"},
    "executors": {"circuits", "engine", "targets", "routing"},
    "dispatch": {"executors", "circuits", "engine", "targets"},
    "capture": set(),
    "report": {"circuits", "cost_models", "kernels", "routing", "targets"},
    "kernels": {"circuits", "engine", "executors", "targets", "routing"},
    "cost_models": {"circuits", "engine", "kernels", "targets", "routing", "report", "executors"},
    "passes": {
        "capture",
        "containers",
        "kernels",
        "cost_models",
        "report",
        "hybrid",
        "interface",
        "targets",
        "executors",
    },
    "bundle": {
        "capture",
        "circuits",
        "containers",
        "engine",
        "executors",
        "hybrid",
        "interface",
        "kernels",
        "report",
        "routing",
        "targets",
    },
}


def imports(file: Path) -> set[str]:
    """Subpackages and modules of qcascade that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("qcascade."):
            found.add(node.module.split(".")[1])
    return found


def test_nothing_lower_imports_anything_higher() -> None:
    shared = {"errors", "plan", "facts", "registry", "cache", "memory"}
    for package, allowed in ALLOWED.items():
        for file in (ROOT / package).rglob("*.py"):
            extra = imports(file) - allowed - shared - {package}
            assert not extra, f"{file.name} of {package} imports {extra}"


def test_units_are_all_that_the_lower_layers_take_of_the_reports() -> None:
    for package in ("cost_models", "passes"):
        for file in (ROOT / package).rglob("*.py"):
            nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
            taken = {n.module for n in nodes if n.module and n.module.startswith("qcascade.report")}
            assert taken <= {"qcascade.report.units"}, f"{file.name} of {package} imports {taken}"
    assert imports(ROOT / "report" / "units.py") == set()


def test_links_at_the_top() -> None:
    for name in ("passes", "cost_models"):
        link = ROOT.parent / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_only_one_top_level_name() -> None:
    ours = [name for name, owners in packages_distributions().items() if "qcascade" in owners]
    assert [n for n in ours if not n.startswith("_")] == ["qcascade"]
