"""Which command wrote which results file."""

from __future__ import annotations

import re

from results import RESULTS, rows, table

_SCRIPTS = {  # where the rows hold no command and the script is not called like the file
    "dispatch": "python tests/benchmarks/dispatch.py --only free --rounds 3 --out FILE`; also `--only limited`, `--only exact",
    "zoo": "python tests/zoo",
}


def figures() -> dict[str, str]:
    """See `python docs/figures --list`."""
    body = []
    for file in sorted(RESULTS.glob("*.jsonl")):
        commands = dict.fromkeys(_plain(r["command"]) for r in rows(file.stem) if "command" in r)
        shown = list(commands) or [_SCRIPTS.get(file.stem, f"python tests/benchmarks/{file.stem}.py --out FILE")]
        text = "<br>".join(f"`{command}`" for command in shown[:3])
        if len(shown) > 3:
            text += f"<br>and {len(shown) - 3} more"
        body.append((f"`{file.name}`", str(len(rows(file.stem))), text))
    decay = next(r for r in rows("fault_tolerant") if r["part"] == "truncation" and r["decay"])["decay"]
    return {
        "sources.table": table(("file", "lines", "command"), body),
        "carleman.decay": f"{decay['ratio']:.2f}",
        "carleman.decay.interval": f"{decay['low']:.2f} to {decay['high']:.2f}",
    }


def _plain(command: str) -> str:
    """Without this machine's paths, and seeds as S, so that runs of one kind are one line; names cut where there are many."""
    if not command.startswith("python "):
        command = f"python {'' if '/' in command.split()[0] else 'tests/benchmarks/'}{command}"
    for option, name in (("data", "DIR"), ("work", "DIR"), ("out", "FILE"), ("seed", "S"), ("plot", "PLOT")):
        command = re.sub(rf"--{option} \S+", f"--{option} {name}", command)
    words = re.sub(r"--circuits( [^-\s]\S*)+", "--circuits …", command).split()
    return " ".join(words)
