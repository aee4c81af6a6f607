"""Measures the cost of `diff` for programs of several sizes.

    python docs/measure_diff.py

Writes docs/data/diff_cost.json. This takes some minutes, during which the
machine should be idle.
"""

import functools
import pathlib
import sys
import time

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
STORED = ROOT / "docs" / "data" / "diff_cost.json"
WRONG = 1e-6
"""The eps of the right program; the left one has 1e-5."""


def measure(what, left, right, args, right_args):
    """Runs `diff` twice, because the first call compiles the operations."""
    from common import diff

    def timed():
        start = time.monotonic()
        found = diff(left, right, *args, right_args=right_args)
        text = str(found)
        if found.ok or "literal 1e-05" not in text:
            raise RuntimeError(
                f"{what}: got {text}, expected the eps. "
                "Print `found.origins` to see what it found instead."
            )
        return found, time.monotonic() - start

    jax.clear_caches()
    found, first = timed()
    _, again = timed()
    nodes = [record.nodes for record in found.records]
    run = {
        "what": what,
        "values": [len(side) for side in nodes],
        "elements": sum(node.fingerprint.size for node in nodes[0]),
        "first": first,
        "again": again,
    }
    print(run, flush=True)
    return run


def main():
    """Measures ResNet-18 by image size and a transformer by depth."""
    from common import environment
    from common.rendering.files import write_json
    from docs.port import resnet, vit_equinox, vit_nnx

    rng = np.random.default_rng(0)
    layers = resnet.weights()
    runs = []
    for size in (32, 64, 128):
        images = rng.normal(size=(1, size, size, 3))
        runs.append(
            measure(
                f"ResNet-18, an image of {size} x {size}",
                resnet.last,
                functools.partial(resnet.first, eps=WRONG),
                (layers, images),
                (layers, images),
            )
        )
    images = rng.normal(size=(2, 16, 16, 3))
    for depth in (3, 6, 12):
        model = vit_equinox.ViT(64, depth=depth, key=jax.random.key(0))
        runs.append(
            measure(
                f"transformer, {depth} layers",
                lambda model, images: jax.vmap(model)(images),
                lambda model, images: model(images),
                (model, images),
                (vit_nnx.ported(model, 64, depth), images),
            )
        )
    facts = environment.environment()
    stored = {"machine": facts["machine"], "environment": facts, "runs": runs}
    write_json(STORED, stored)


if __name__ == "__main__":
    main()
