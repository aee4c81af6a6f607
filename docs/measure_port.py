"""Measures how `port` fills a model of a billion parameters from a file.

    python docs/measure_port.py

Writes docs/data/port_cost.json. This takes some minutes and 5 GB of memory,
and the machine should be idle. The file of 2 GB is deleted at the end.
"""

import gc
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
STORED = ROOT / "docs" / "data" / "port_cost.json"
CASES = (("equinox", 1), ("equinox", 8), ("flax", 1), ("flax", 8))
"""The library of the target, and the number of virtual devices."""

WIDTH, BLOCKS, STACKED, OUTPUTS = 4096, 16, 6, 22_968
"""At this width, the model has 1.0e9 parameters."""

ROUNDS = 7
"""How often each time is taken. The shortest counts, as in `timeit`."""

WARM = 2**31
"""Bytes of memory that are used before each measurement."""

RULES = {
    "equinox": "deep.{i}.weight -> stack -> deep.weight",
    "flax": "deep.{i}.weight -> transpose -> stack -> deep.kernel",
}


def shapes(width):
    """Returns the shape of each array of the file, as PyTorch writes it."""
    found = {}
    for i in range(BLOCKS):
        found[f"blocks.{i}.square.weight"] = (width, width)
        found[f"blocks.{i}.wide.weight"] = (2 * width, width)
    for i in range(STACKED):
        found[f"deep.{i}.weight"] = (width, width)
    outputs = OUTPUTS * width // WIDTH // 8 * 8
    return {**found, "head.weight": (outputs, width)}


def write(path, width):
    """Writes a file of random weights in bfloat16."""
    import ml_dtypes
    import numpy as np

    from common.tensors import write_stored

    rows = max(shape[0] for shape in shapes(width).values())
    draw = np.random.default_rng(0).integers
    bits = draw(0, 2**14, (rows, width), dtype=np.uint16)
    values = bits.view(ml_dtypes.bfloat16)
    write_stored(path, {n: values[: s[0]] for n, s in shapes(width).items()})


def equinox_target(width):
    """Returns an Equinox model that holds shapes only."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    def linear(inputs, outputs, key):
        return eqx.nn.Linear(
            inputs, outputs, use_bias=False, dtype=jnp.bfloat16, key=key
        )

    class Block(eqx.Module):
        square: eqx.nn.Linear
        wide: eqx.nn.Linear

    class Model(eqx.Module):
        blocks: list[Block]
        deep: eqx.nn.Linear
        head: eqx.nn.Linear

    def make(key):
        def stacked(key):
            return linear(width, width, key)

        square = linear(width, width, key)
        wide = linear(width, 2 * width, key)
        deep = eqx.filter_vmap(stacked)(jax.random.split(key, STACKED))
        head = linear(width, shapes(width)["head.weight"][0], key)
        return Model([Block(square, wide) for _ in range(BLOCKS)], deep, head)

    return eqx.filter_eval_shape(make, jax.random.key(0))


def flax_target(width):
    """Returns an NNX module that holds shapes only."""
    import jax.numpy as jnp
    from flax import nnx

    def linear(inputs, outputs, rngs):
        return nnx.Linear(
            inputs, outputs, use_bias=False, param_dtype=jnp.bfloat16,
            rngs=rngs,
        )  # fmt: skip

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.square = linear(width, width, rngs)
            self.wide = linear(width, 2 * width, rngs)

    class Model(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=STACKED)
            @nnx.vmap
            def stacked(rngs):
                return linear(width, width, rngs)

            self.blocks = nnx.List([Block(rngs) for _ in range(BLOCKS)])
            self.deep = stacked(rngs)
            outputs = shapes(width)["head.weight"][0]
            self.head = linear(width, outputs, rngs)

    return nnx.eval_shape(lambda: Model(nnx.Rngs(0)))


def sharded(target):
    """Splits the largest axis of each array over all devices."""
    import jax
    from flax import nnx

    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)

    def split(x):
        largest = x.shape.index(max(x.shape))
        spec = jax.sharding.PartitionSpec(*[None] * largest, "data")
        where = jax.sharding.NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    if isinstance(target, nnx.Module):
        graph, state = nnx.split(target)
        return nnx.merge(graph, jax.tree.map(split, state))
    return jax.tree.map(split, target)


def anonymous():
    """Returns the memory that is not a file's, in bytes (Linux)."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = (x for x in lines if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Watch:
    """Samples the anonymous memory every two milliseconds."""

    def __enter__(self):
        self.start = self.peak = anonymous()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self):
        while not self._ended.wait(0.002):
            self.peak = max(self.peak, anonymous())

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self.peak = max(self.peak, anonymous())

    @property
    def added(self):
        return self.peak - self.start


def timed(call, *arguments):
    """Returns how long a call takes, in seconds. Its result is dropped."""
    import numpy as np

    # A virtual machine gives free memory back, and takes long to get it again.
    np.ones(WARM, np.uint8)
    start = time.perf_counter()
    result = call(*arguments)
    seconds = time.perf_counter() - start
    del result
    release()
    return seconds


def release():
    """Frees what JAX would free when it transfers the next array."""
    import jax
    import numpy as np

    gc.collect()
    jax.device_put(np.zeros(1)).block_until_ready()
    gc.collect()


def measure(path, library, width=WIDTH):
    """Fills a target, and returns what it cost."""
    import jax
    import numpy as np

    from common import port
    from common.tensors import open_stored

    make = equinox_target if library == "equinox" else flax_target
    arrays = open_stored(path)

    def new():
        return sharded(make(width)) if jax.device_count() > 1 else make(width)

    def fill(target):
        return port(path, target, rules=RULES[library])

    def copy():
        return [np.array(x) for x in arrays.values()]

    def verify():
        # What is done to the file of a State before it is read.
        digest = hashlib.sha256()
        for chunk in arrays.chunks():
            digest.update(chunk.data)

    def transpose():
        # By JAX, which is faster at this than NumPy.
        made = (jax.device_put(x.T) for x in arrays.values())
        return [x.block_until_ready() for x in made]

    entries = arrays.entries.values()
    sizes = [e.dtype.itemsize * int(np.prod(e.shape)) for e in entries]
    # The stack is one array of the target.
    largest = max(*sizes, 2 * STACKED * width * width)
    target = new()
    release()
    with Watch() as watch:
        filled = fill(target)
    held = watch.added
    del filled, target
    release()
    times = {"copy": [], "port": [], "transpose": []}
    times["verify"] = [timed(verify)]
    for _ in range(ROUNDS):
        times["copy"].append(timed(copy))
        times["port"].append(timed(fill, new()))
        times["transpose"].append(timed(transpose))
    return {
        "library": library,
        "devices": jax.device_count(),
        "parameters": sum(sizes) // 2,
        "bytes": sum(sizes),
        "largest": largest,
        "memory": held,
        "seconds": {name: min(taken) for name, taken in times.items()},
        "all_seconds": times,
    }


def run(path, library, devices, width=WIDTH):
    """Measures in a process of its own, whose memory is its own."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, __file__, str(path), library, str(width)],
        env={**os.environ, "XLA_FLAGS": flag, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main():
    """Measures each case, and stores the figures."""
    if sys.argv[1:]:
        path, library, width = sys.argv[1:]
        print(json.dumps(measure(path, library, int(width))))
        return
    from common import environment
    from common.rendering.files import write_json

    runs = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.safetensors")
        write(path, WIDTH)
        for case in CASES:
            runs.append(run(path, *case))
            print(runs[-1], flush=True)
    facts = environment.environment()
    stored = {"machine": facts["machine"], "environment": facts, "runs": runs}
    write_json(STORED, stored)


if __name__ == "__main__":
    main()
