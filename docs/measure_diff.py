"""Measures the cost of `diff` for programs of several sizes.

    python docs/measure_diff.py

Writes docs/data/diff_cost.json. This takes some minutes, during which the
machine should be idle.
"""

import functools
import multiprocessing
import pathlib
import resource
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


def large(name):
    """Compares two public architectures with an image of 224 x 224.

    The weights of the left one are carried to the right one, whose eps is
    wrong.

    Returns:
        What `measure` returns, with the time of the first call only, and the
        peak of the memory of the process in bytes.
    """
    import equinox as eqx
    from flax import nnx

    from common import align, diff, port
    from docs.port import resnet50_equinox, resnet50_nnx, vit_equinox, vit_nnx

    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3))
    if name == "ResNet-50":
        make = eqx.nn.make_with_state(resnet50_equinox.ResNet50)
        model, state = make(key=jax.random.key(0))
        batch = np.random.default_rng(1).normal(size=(2, 64, 64, 3))
        batch = batch.astype("float32")
        channels_first = batch.transpose(0, 3, 1, 2)
        # A step in training mode gives the batch norms their statistics.
        _, state = jax.vmap(
            model, in_axes=(0, None), out_axes=(0, None), axis_name="batch"
        )(channels_first, state)
        left = model, state
        right = resnet50_nnx.ResNet(rngs=nnx.Rngs(0))
        found = align(
            left, right, left_inputs=channels_first, right_inputs=batch
        )
        right = port(left, right, rules=found, batch_norm="serve")
        right.bn.epsilon = WRONG
        model = eqx.nn.inference_mode(model)

        def resnet(model, state, images):
            return jax.vmap(model, in_axes=(0, None))(images, state)[0]

        program = resnet
        args = (model, state, images.transpose(0, 3, 1, 2))
        right.eval()
    else:
        left = vit_equinox.ViT(
            384, heads=6, depth=12, patch=16, key=jax.random.key(0)
        )
        right = vit_nnx.ported(left, 384, 12, heads=6, patch=16)

        def vit(model, images):
            return jax.vmap(model)(images)

        program = vit
        args = (left, images)
    start = time.monotonic()
    found = diff(
        program,
        lambda model, images: model(images),
        *args,
        right_args=(right, images),
    )
    first_call = time.monotonic() - start
    text = str(found)
    if found.ok or "literal 1e-05 against" not in text:
        raise RuntimeError(
            f"{name}: got {text}, expected the eps. "
            "Print `found.origins` to see what it found instead."
        )
    nodes = [record.nodes for record in found.records]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "what": f"{name}, an image of 224 x 224",
        "values": [len(side) for side in nodes],
        "elements": sum(node.fingerprint.size for node in nodes[0]),
        "first": first_call,
        "peak": peak,
    }


def main():
    """Measures ResNet-18 by image size and a transformer by depth.

    Two models of the usual size follow, each in a process of its own.
    """
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
    for name in ("ResNet-50", "ViT-S/16"):
        spawned = multiprocessing.get_context("spawn")
        with spawned.Pool(1) as pool:
            runs.append(pool.apply(large, (name,)))
        print(runs[-1], flush=True)
    facts = environment.environment()
    stored = {"machine": facts["machine"], "environment": facts, "runs": runs}
    write_json(STORED, stored)


if __name__ == "__main__":
    main()
