"""Computes the figures that the documentation shows.

python -m tests.divergence.mutations docs/data/mutations.json
"""

import json
import pathlib
import sys

from tests.divergence.mutations.figures import figures

if __name__ == "__main__":
    (path,) = sys.argv[1:]
    found = figures()
    pathlib.Path(path).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
