"""`python -m qcascade`."""

from qcascade.cli import main

main()
