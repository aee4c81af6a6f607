"""Computes the figures that the documentation shows.

python -m tests.divergence.mutations docs/data/mutations.json
"""

import sys

import jax

from common.rendering.files import to_json, write_json
from tests.divergence.mutations.figures import figures

if __name__ == "__main__":
    (path,) = sys.argv[1:]
    with jax.enable_x64(False):  # JAX's default
        found = figures()
    write_json(path, found)
    print(to_json(found))
