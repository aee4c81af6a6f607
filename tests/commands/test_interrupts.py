"""Control-C in real processes: while importing, compiling and training."""

import pytest

from common import State
from tests.commands.processes import run_script, run_with_startup
from tests.conftest import exhaustive_but

# Presses when something imports JAX.
WHILE_IMPORTING = """
class Press:
    def find_spec(self, name, path, target=None):
        if name == "jax":
            press()


sys.meta_path.insert(0, Press())
"""

# Presses while XLA compiles a program: 20 ms after it was handed over, with
# nothing read from the cache.
WHILE_COMPILING = """
class Press:
    def find_spec(self, name, path, target=None):
        if name == "common.training.loop":
            import jax

            jax.config.update("jax_enable_compilation_cache", False)
            jax.monitoring.register_event_duration_secs_listener(listen)


def listen(event, seconds, **facts):
    lowered = event == "/jax/core/compile/jaxpr_to_mlir_module_duration"
    if lowered and "_run_chunk" in str(facts.get("fun_name")):
        press_later(0.02)


sys.meta_path.insert(0, Press())
"""

# Presses in the middle of training, some chunks after the last compile.
WHILE_TRAINING = WHILE_COMPILING.replace("0.02", "4")

# Presses while XLA compiles the fifth program of a command.
WHILE_COMPILING_THE_FIFTH = """
class Press:
    def find_spec(self, name, path, target=None):
        if name in ("common.comparison", "common.benchmark"):
            import jax

            jax.config.update("jax_enable_compilation_cache", False)
            jax.monitoring.register_event_duration_secs_listener(listen)


programs = []


def listen(event, seconds, **facts):
    if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
        programs.append(facts)
        if len(programs) == 5:
            press_later(0.005)


sys.meta_path.insert(0, Press())
"""

COMMANDS = [
    "compare --model deep_mlp --steps 3",
    "diff mine:f mine:f --inputs shape=2,3",
    "train --backend flax --model deep_mlp",
    "bench --quick",
    "layers --name dropout",
    "differences --name spectral",
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words.split()[0])
def test_every_command_ends_quietly_while_python_imports(words, tmp_path):
    done = run_with_startup(WHILE_IMPORTING, tmp_path, *words.split())
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command", exhaustive_but(["compare", "bench", "layers"], "compare")
)
def test_a_command_ends_quietly_while_xla_compiles(command, tmp_path):
    (words,) = [words for words in COMMANDS if words.startswith(command)]
    file = tmp_path / "r.json"
    done = run_with_startup(
        WHILE_COMPILING_THE_FIFTH,
        tmp_path,
        *words.split(),
        *("--json", file.name),
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert not file.exists()


TRAIN = "train --backend equinox --model deep_mlp --epochs 1000000".split()


def check_file(done, file) -> int:
    """Checks the one line and the file of an interrupted run."""
    assert done.returncode == 130, done.stderr
    state, _ = State.read(file)
    steps = int(state.step)
    noun = "step" if steps == 1 else "steps"
    assert done.stderr == (
        f"interrupted after {steps} {noun}; wrote {file.name}, continue with "
        f"--resume {file.name}\n"
    )
    return steps


@pytest.mark.exhaustive
@pytest.mark.parametrize("startup", [WHILE_COMPILING, WHILE_TRAINING])
def test_an_interrupted_run_is_saved(startup, tmp_path):
    file = tmp_path / "run.safetensors"
    done = run_with_startup(startup, tmp_path, *TRAIN, "--save", file.name)
    steps = check_file(done, file)
    if startup is WHILE_TRAINING:
        assert steps > 100
    words = "train --backend flax --epochs 1 --resume".split()
    resumed = run_script(*words, str(file))
    assert resumed.returncode == 0, resumed.stderr
    assert "in total) on 256 examples" in resumed.stdout


def test_a_run_without_a_file_says_that_nothing_was_saved(tmp_path):
    done = run_with_startup(WHILE_COMPILING, tmp_path, *TRAIN)
    assert done.returncode == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("interrupted after")
    assert line.endswith("nothing was saved, because there was no --save FILE")
