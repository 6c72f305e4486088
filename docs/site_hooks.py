"""What the site needs beyond its pages: README as the home page, images of results, mathematics, fences without our words.

Hooks of MkDocs, called by name. Mathematics between dollars becomes MathML when the site is built, so that browsers need no
script for it; the same pages are read on a code host, which knows the dollars.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
_MARK = re.compile(r"<!--= [\w.+-]+ -->|<!--/-->")
_IMAGE = re.compile(r"!\[([^\]]*)\]\((?:\.\./)+((?:tests/benchmarks/)?results/[^)]+)\)")
_formulas: list[str] = []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README as the home page, and the images that benchmarks and studies wrote."""
    home = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    home = home.replace("](CHANGELOG.md)", "](changes.md)").replace(
        "[Notebooks](notebooks)", "Notebooks (folder `notebooks`)"
    )
    files.append(File.generated(config, "index.md", content=home))
    files.append(File.generated(config, "changes.md", content=(ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    for folder in ("tests/benchmarks/results", "results"):
        for image in sorted((ROOT / folder).rglob("*.png")):
            name = image.relative_to(ROOT).as_posix()
            files.append(File.generated(config, f"measured/{name}", abs_src_path=str(image)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Take our marks away, put formulas aside, and lead images to their copies."""
    up = "../" * page.file.src_uri.count("/")
    markdown = _MARK.sub("", markdown)
    markdown = _IMAGE.sub(lambda m: f"![{m[1]}]({up}measured/{m[2]})", markdown)
    markdown = re.sub(r"^```python no-run: (.*)$", r"*Not run here: \1.*\n\n```python", markdown, flags=re.MULTILINE)
    parts = _CODE.split(markdown)
    parts[::2] = [_MATH.sub(_aside, part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, **_: Any) -> str:
    """Put formulas back, as MathML."""
    return re.sub(r"formula(\d+)elumrof", lambda m: _formulas[int(m[1])], html)


def _aside(match: re.Match[str]) -> str:
    block = match[1] is not None
    _formulas.append(convert(match[1] or match[2], display="block" if block else "inline"))
    return f"formula{len(_formulas) - 1}elumrof"
