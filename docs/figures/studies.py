"""What the studies wrote: results/STUDY/table.md and plots, or the command where there is none yet."""

from __future__ import annotations

import re

from results import ROOT, between, rows_of

_COMMANDS = {
    "cascade": "qcascade study cascade --data DIR",
    "head": "qcascade study head --data DIR --out results/head",
    "adapters": "qcascade study adapters --data DIR --reviews DIR --out results/adapters",
    "fault-tolerant": "qcascade study fault-tolerant --data DIR",
}


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    found = {}
    for study, command in _COMMANDS.items():
        folder = ROOT / "results" / study
        page = folder / "table.md"
        table = _nested(page.read_text(encoding="utf-8"), study) if page.is_file() else f"not yet run: `{command}`"
        found[f"study.{study}.table"] = table
        plots = sorted(folder.glob("*.png"))
        shown = "\n\n".join(f"![{p.stem.replace('_', ' ')}]({p.relative_to(ROOT).as_posix()})" for p in plots)
        found[f"study.{study}.plots"] = shown + "\n" if shown else "no plots yet"
        files = [
            f"`{p.relative_to(ROOT).as_posix()}` ({len(rows_of(p))} lines)" for p in sorted(folder.glob("*.jsonl"))
        ]
        found[f"study.{study}.files"] = ", ".join(files) or "none yet"
    return {**found, **_oracle()}


def _oracle() -> dict[str, str]:
    measured = [r["measured"] for r in rows_of(ROOT / "results" / "fault-tolerant" / "oracle.jsonl")]
    return {
        "oracle.images": f"{measured[0]['images']:,}",
        "oracle.wasserstein": between((100 * m["wasserstein"] for m in measured), "{:.2f}") + " %",
    }


def _nested(text: str, study: str) -> str:
    """Without its own title, headings two levels down, links from the repository's root, data by the name of their folder."""
    text = re.sub(r"\A# [^\n]*\n", "", text)
    text = re.sub(r"^(#+) ", r"##\1 ", text, flags=re.MULTILINE)
    text = re.sub(r"\]\((?!https?:|#|results/)([^)]+)\)", rf"](results/{study}/\1)", text)
    text = re.sub(r"--(data|reviews) (?:[^\s/]*/)*(\S+)", r"--\1 \2", text)
    return text.strip() + "\n"
