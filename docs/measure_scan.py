"""Measures what scan and remat cost in the model deep_mlp.

    python docs/measure_scan.py
    python docs/measure_scan.py 8,32

Writes docs/data/scan_costs.json: for all sizes, or for the given numbers of
features and examples. This takes some minutes, during which the machine should
be idle.
"""

import dataclasses
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
STORED = ROOT / "docs" / "data" / "scan_costs.json"
DEPTH = 100
SIZES = ((8, 32), (128, 128), (512, 256))
"""The numbers of features and of examples."""
ROUNDS, FIRSTS = 12, 1


def main():
    """Measures both libraries at each size."""
    from common import environment
    from common.benchmark.scanning import scan_costs
    from common.rendering.files import write_json

    given = [tuple(map(int, word.split(","))) for word in sys.argv[1:]]
    load = os.getloadavg()[0]
    costs = []
    for size, batch_size in given or SIZES:
        for backend in ("equinox", "flax"):
            found = scan_costs(
                backend,
                depth=DEPTH,
                size=size,
                batch_size=batch_size,
                rounds=ROUNDS,
                firsts=FIRSTS if size == SIZES[0][0] else 1,
            )
            for cost in found:
                print(cost, flush=True)
                costs.append(dataclasses.asdict(cost))
    facts = environment.environment()
    stored = {
        "machine": facts["machine"],
        "environment": facts,
        "depth": DEPTH,
        "rounds": ROUNDS,
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "costs": costs,
    }
    write_json(STORED, stored)


if __name__ == "__main__":
    main()
