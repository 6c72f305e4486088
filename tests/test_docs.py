"""README and the pages: examples run, figures are what the results say, commands exist, the site builds and needs no network.

Every ```python block of a page runs, in order, in one namespace and one temporary folder; ```python no-run: WHY does not. Lines of
plain ``` and ```sh blocks that begin with qcascade, make or python are checked against the commands' own options, the Makefile
and the files there are.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from qcascade.cli import app
from qcascade.cost_models.base import COST_MODELS
from qcascade.kernels import KERNELS
from qcascade.targets.catalogue import TARGETS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"<!--= [\w.+-]+ -->.*?<!--/-->", re.DOTALL)
# What looks measured: a number with a unit of time or memory, a percentage, a deviation.
_MEASURED = re.compile(r"(?<![\w.,^–-])\d[\d,.]*\s?(?:%|±|ms\b|µs\b|seconds\b|s\b(?!\w)|[kMG]B\b(?!/s))")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[str, str, int]]:
    """Info, text and first line of every fenced block."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        yield match[1].strip(), match[2], text.count("\n", 0, match.start()) + 2


def examples(page: Path) -> list[tuple[str, int]]:
    return [(text, line) for info, text, line in blocks(page) if info == "python"]


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=named)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for registry in (KERNELS, COST_MODELS, TARGETS):  # what an example registers stays in it
        monkeypatch.setattr(registry, "_items", dict(registry._items))
    namespace: dict[str, object] = {"__name__": "example"}
    for text, line in examples(page):
        # as many empty lines before it, so that a traceback points into the page
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_examples_that_do_not_run_say_why(page: Path) -> None:
    for info, _, line in blocks(page):
        if info.startswith("python"):
            assert info == "python" or re.fullmatch(r"python no-run: .{8,}", info), f"{named(page)}:{line}: {info}"


def test_recorded_commands_name_no_place_of_one_machine() -> None:
    files = [*(ROOT / "results").rglob("*.jsonl"), *(ROOT / "tests" / "benchmarks" / "results").glob("*.jsonl")]
    commands = {
        (file.name, json.loads(line).get("command", "")) for file in files for line in file.open(encoding="utf-8")
    }
    assert len(commands) > 10
    assert not {pair for pair in commands if re.search(r"(?:^|[ =])/", pair[1])}


def test_figures_are_what_the_results_say() -> None:
    done = subprocess.run([sys.executable, "docs/figures", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "guide" in p.parts or p.name in ("README.md", "results.md", "limits.md")], ids=named
)
def test_nothing_measured_is_typed_by_hand(page: Path) -> None:
    text = _SPAN.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))
    text = re.sub(r"`[^`]*`", "", text)
    typed = [found[0] for found in _MEASURED.finditer(text) if found[0] not in _GIVEN]
    assert not typed, f"{named(page)}: {typed}; let docs/figures compute them"


_GIVEN = {"90 %", "95 %"}  # defaults and definitions: share pruned, level of an interval


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page: Path) -> None:
    for info, text, line in blocks(page):
        if info not in ("", "sh", "console"):
            continue
        for command in text.splitlines():
            words = shlex.split(command, comments=True)
            if words[:1] == ["qcascade"]:
                _check_qcascade(words[1:], f"{named(page)}:{line}")
            elif words[:1] == ["make"]:
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            elif words[:1] == ["python"] and words[1] != "-m":
                assert (ROOT / words[1]).exists(), command


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_in_the_text_exist(page: Path) -> None:
    """Commands and paths between single backticks."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text(encoding="utf-8"))):
        words = code.split()
        if words[:1] == ["qcascade"] and len(words) > 1:
            assert words[1] in commands, f"{named(page)}: {code}"
        for word in words if words[:1] == ["python"] else words[:1]:
            if re.fullmatch(r"(?:tests|docs|qcascade|notebooks)/[\w./-]+", word):
                assert (ROOT / word).exists(), f"{named(page)}: {code}"


def _check_qcascade(words: list[str], where: str) -> None:
    group = typer.main.get_command(app)
    while hasattr(group, "commands"):
        assert words and words[0] in group.commands, f"{where}: qcascade has no command {words[:1]}"
        group, words = group.commands[words[0]], words[1:]
    known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words if word.startswith("-")}
    assert used <= known, f"{where}: {group.name} has no option {sorted(used - known)}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{named(page)}: {link}"


def test_every_object_is_documented_in_one_place() -> None:
    named_objects = [
        name for page in PAGES for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
    ]
    assert len(named_objects) == len(set(named_objects)) > 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="extra docs is not installed")
    pytest.importorskip("latex2mathml", reason="extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(  # not quietly: what is not said is not counted as a warning
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_has_every_page(site: Path) -> None:
    for page in PAGES[1:]:
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).exists(), named(page)
    assert "QCascade" in (site / "index.html").read_text(encoding="utf-8")


def test_site_needs_no_network(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\s(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    for page in site.rglob("*.html"):
        found = [tag[0] for tag in loads.finditer(page.read_text(encoding="utf-8")) if 'rel="canonical"' not in tag[0]]
        assert not found, f"{page.name}: {found[0]}"
    assert not re.search(r"url\([\"']?https?:", "".join(p.read_text(encoding="utf-8") for p in site.rglob("*.css")))


def test_site_has_mathematics_and_no_marks(site: Path) -> None:
    text = (site / "concepts" / "kernels.html").read_text(encoding="utf-8")
    assert "<math" in text and "$$" not in text
    assert "<!--=" not in (site / "results.html").read_text(encoding="utf-8")
