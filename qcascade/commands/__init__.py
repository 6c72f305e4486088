"""The commands of the command line: one file each; `qcascade.cli` is the list."""
