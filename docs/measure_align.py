"""Measures the cost of `align` for models of several sizes.

    python docs/measure_align.py

Writes docs/data/align_cost.json. This takes some minutes, during which the
machine should be idle.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
STORED = ROOT / "docs" / "data" / "align_cost.json"
TRANSFORMERS = ((64, 3), (256, 6), (768, 12))
"""The width and the number of layers of each vision transformer."""
RESNET = "ResNet-50, images of 64 x 64"


def transformer(size, depth):
    """Returns a transformer in both libraries, with the same eps."""
    import jax
    from flax import nnx

    from docs.port import vit_equinox, vit_nnx

    left = vit_equinox.ViT(size, 4, depth, key=jax.random.key(0))
    right = vit_nnx.ViT(size, 4, depth, rngs=nnx.Rngs(0))
    for _, module in nnx.iter_modules(right):
        if isinstance(module, nnx.LayerNorm):
            module.epsilon = left.norm.eps
    return left, right, (2, 16, 16, 3), False


def resnet():
    """Returns a ResNet-50 in both libraries."""
    import equinox as eqx
    import jax
    from flax import nnx

    from docs.port import resnet50_equinox, resnet50_nnx

    make = eqx.nn.make_with_state(resnet50_equinox.ResNet50)
    left = make(key=jax.random.key(0))
    right = resnet50_nnx.ResNet(rngs=nnx.Rngs(0))
    return left, right, (2, 64, 64, 3), True


def cases():
    """Returns the models to measure by what they are."""
    found = {
        f"transformer, {depth} layers, width {size}": (size, depth)
        for size, depth in TRANSFORMERS
    }
    return {**found, RESNET: ()}


def measure(what):
    """Aligns one pair, and returns what it cost."""
    import numpy as np

    from common import align

    arguments = cases()[what]
    left, right, shape, channels_first = (
        transformer(*arguments) if arguments else resnet()
    )
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    found = align(
        left,
        right,
        left_inputs=images.transpose(0, 3, 1, 2) if channels_first else images,
        right_inputs=images,
        progress=False,
    )
    if not found.proved:
        raise RuntimeError(
            f"{what}: got {found.status}, expected a proved mapping. Print "
            "the alignment to see what it found instead."
        )
    cost = found.cost
    return {
        "what": what,
        "arrays": list(cost.arrays),
        "elements": cost.elements[0],
        "cuts": cost.cuts,
        "runs": sum(cost.runs),
        "seconds": cost.seconds,
        "memory": cost.memory,
        "agreement": found.agreement,
    }


def main():
    """Measures each pair in a process of its own, because of its memory."""
    from common import environment
    from common.rendering.files import write_json

    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1])))
        return
    runs = []
    for what in cases():
        done = subprocess.run(
            [sys.executable, __file__, what],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout))
        print(runs[-1], flush=True)
    facts = environment.environment()
    stored = {"machine": facts["machine"], "environment": facts, "runs": runs}
    write_json(STORED, stored)


if __name__ == "__main__":
    main()
