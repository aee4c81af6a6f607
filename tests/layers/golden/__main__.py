"""Checks the golden files, or writes them.

`python -m tests.layers.golden` recomputes the results from the stored inputs.
`python -m tests.layers.golden linear lstm_cell` draws new inputs for these
rows and writes their files. `python -m tests.layers.golden all` writes all.
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
    save(
        layer, [complete(case, draw(case, i)) for i, case in enumerate(found)]
    )
    print(f"{path(layer).name}: {path(layer).stat().st_size:,} bytes")


def main() -> int:
    # Derivatives are imaginary parts, which must not be dropped.
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
