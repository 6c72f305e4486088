"""What the studies wrote: results/STUDY/table.md and plots, or the command where a study was not run yet."""

from __future__ import annotations

from results import ROOT

_COMMANDS = {
    "cascade": "qcascade study cascade --data DIR",
    "head": "qcascade study head --data DIR",
    "adapters": "qcascade study adapters --data DIR",
    "fault-tolerant": "qcascade study fault-tolerant --data DIR",
}


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    found = {}
    for study, command in _COMMANDS.items():
        folder = ROOT / "results" / study
        page = folder / "table.md"
        missing = f"not yet run: `{command}`"
        found[f"study.{study}.table"] = page.read_text(encoding="utf-8").strip() + "\n" if page.is_file() else missing
        plots = sorted(folder.rglob("*.png")) if folder.is_dir() else []
        shown = "\n\n".join(f"![{p.stem.replace('_', ' ')}]({p.relative_to(ROOT).as_posix()})" for p in plots)
        found[f"study.{study}.plots"] = shown + "\n" if shown else "no plots yet"
    return found
