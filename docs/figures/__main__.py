"""Measured figures in README.md and docs/: `python docs/figures --write` puts them in, `--check` says which are out of date.

A figure stands between two comments, `<!--= NAME -->…<!--/-->`, and is computed from a results file that a command wrote. No
one types it. `--list` prints every name with its value. Names are defined in the modules beside this file, one a subject.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pages import difference, pages, written
from subjects import figures


def main() -> int:
    """0: all figures are what the results say; 1: some are not."""
    parser = argparse.ArgumentParser(prog="python docs/figures", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="put the figures in")
    what.add_argument("--check", action="store_true", help="say which are out of date")
    what.add_argument("--list", action="store_true", help="print all figures")
    options = parser.parse_args()
    found, unread = figures()
    wrong = list(unread)
    if options.list:
        for name, text in sorted(found.items()):
            print(f"{name}: {text}")
        return 0
    stale = 0
    for page in pages(Path(__file__).parents[2]):
        before = page.read_text(encoding="utf-8")
        after, missing = written(before, found, page)
        wrong += missing if not unread else []  # else it may be a name of the subject that could not be read
        if after != before:
            stale += 1
            print(f"{page}: {difference(before, after)}" if options.check else f"{page}: written")
            if options.write:
                page.write_text(after, encoding="utf-8")
    if options.check and stale:
        print("run: python docs/figures --write", file=sys.stderr)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong or (options.check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
