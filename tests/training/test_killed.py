"""SIGKILL while `fit` writes checkpoints: the run ends as if it was whole."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.conftest import exhaustive_but

ROOT = pathlib.Path(__file__).parents[2]

# The parent never starts a JAX backend, so that it can fork. Each child
# continues the run and says when it trains. The kills come at random times
# that fit the measured time of a checkpoint.
PROGRAM = """
import os, random, signal, sys, time
import jax, numpy as np
import orbax.checkpoint
from common import build, checkpoints
from common.training.trainer import Trainer

folder, cache, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
EPOCHS = 2 * count + 10
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
xs = np.random.default_rng(0).normal(size=(11, 3)).astype("float32")

def fit(every, pipe=None):
    trainer = build("deep_mlp", backend="reference", depth=1, size=3)
    keep = trainer._keep
    def say(chunk):
        keep(chunk)
        os.write(pipe, b"x")
    if pipe is not None:
        trainer._keep = say
    options = {}
    if every:
        options = dict(checkpoint=folder, every=every, keep=2, resume=True)
    trainer.fit(
        xs, np.sin(xs), epochs=EPOCHS, batch_size=4, progress=False, **options
    )
    return trainer

def child(every):
    reader, writer = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            fit(every, writer)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    return number, reader

draw = random.Random(0)
killed, seen, seconds, partial = 0, set(), 0.1, 0
while killed < count:
    number, reader = child(every=1)
    began = None
    end = time.perf_counter() + 120
    first = os.read(reader, 1)
    began = time.perf_counter()
    if killed == 0:  # how long a checkpoint takes here
        for _ in range(3):
            os.read(reader, 1)
        seconds = (time.perf_counter() - began) / 3
    time.sleep(draw.uniform(0, 3 * seconds))
    os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    os.close(reader)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        break  # the run was complete
    assert os.WIFSIGNALED(status), "a child could not continue"
    killed += 1
    steps = checkpoints.steps(folder)
    seen.add(max(steps, default=0))
    partial += any(checkpoints.TEMPORARY in x for x in os.listdir(folder))

resumed = fit(every=10**6)
whole = fit(every=None)
for name, x in whole.state().flat().items():
    y = resumed.state().flat()[name]
    assert np.array_equal(x, y), name
print(killed, len(seen), partial, int(whole.state().step))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("count", exhaustive_but([3, 200], 3))
def test_a_killed_run_continues_to_the_same_end(count, tmp_path):
    arguments = (str(tmp_path / "run"), str(tmp_path / "cache"), str(count))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    killed, different, partial, _ = map(int, done.stdout.split())
    assert killed == count
    # Most made progress, and some were killed while they wrote.
    assert different > count / 3
    assert partial > count / 10
