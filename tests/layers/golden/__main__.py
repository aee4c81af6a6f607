"""Checks the golden files, or writes some.

`python -m tests.layers.golden` recomputes what is stored from its own inputs.
`python -m tests.layers.golden linear lstm_cell` draws these rows again and
writes them;
`python -m tests.layers.golden all` writes every one.
"""

import sys
import warnings

import numpy as np

from tests.layers.golden.case import complete, draw, load, path, save
from tests.layers.golden.cases import cases
from tests.layers.golden.check import check


def write(layer: str) -> None:
    """Draws, computes and stores the cases of a row."""
    found = cases()[layer]
    save(layer, [complete(it, draw(it, i)) for i, it in enumerate(found)])
    print(f"{path(layer).name}: {path(layer).stat().st_size:,} bytes")


def main() -> int:
    # A derivative would be lost with an imaginary part.
    warnings.simplefilter("error", np.exceptions.ComplexWarning)
    names = sys.argv[1:]
    if names == ["all"]:
        names = list(cases())
    for name in names:
        write(name)
    problems = [
        problem for name in cases() for problem in check(name, load(name))
    ]
    for problem in problems:
        print(problem)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
