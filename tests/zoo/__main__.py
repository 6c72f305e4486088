"""`python tests/zoo [NAME …]`: the table."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from zoo.table import main

sys.exit(min(1, main(sys.argv[1:])))
