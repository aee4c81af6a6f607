"""Control-C during `fit`: the signal handler, and signals to a process."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from common.errors import Interrupted
from common.training.interrupts import DelayedInterrupt

ROOT = pathlib.Path(__file__).parents[2]


# --- the handler ------------------------------------------------------------


def press() -> None:
    """Does what Control-C does: sends SIGINT to this process."""
    signal.raise_signal(signal.SIGINT)


def test_the_first_signal_only_sets_a_flag():
    with DelayedInterrupt() as interrupt:
        assert not interrupt.pending
        press()
        assert interrupt.pending
    assert interrupt.pending


@pytest.fixture
def interactive(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)


def test_the_second_signal_raises_in_an_interactive_session(interactive):
    with pytest.raises(KeyboardInterrupt), DelayedInterrupt():
        press()
        press()
        pytest.fail("the second signal did not raise")


def test_the_handler_is_restored():
    before = signal.getsignal(signal.SIGINT)
    with DelayedInterrupt():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with contextlib.suppress(RuntimeError), DelayedInterrupt():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_signal_that_numpy_turned_into_a_value_error_is_an_interrupt(
    interactive,
):
    with pytest.raises(KeyboardInterrupt), DelayedInterrupt():
        press()
        try:
            press()
        except KeyboardInterrupt:
            raise ValueError("setting an array element") from None


def test_other_errors_pass_through():
    with pytest.raises(ValueError, match="mine"), DelayedInterrupt():
        press()
        raise ValueError("mine")


def test_a_handler_of_the_program_stays_in_place():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    try:
        with DelayedInterrupt() as interrupt:
            press()
        assert (calls, interrupt.pending) == ([1], False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_nothing_is_installed_outside_the_main_thread():
    before = signal.getsignal(signal.SIGINT)
    found = []

    def enter():
        with DelayedInterrupt() as interrupt:
            found.append(signal.getsignal(signal.SIGINT))
            found.append(interrupt.pending)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before, False]


def test_an_event_loop_keeps_its_wakeup_file():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    try:
        with DelayedInterrupt() as interrupt:
            press()
            assert interrupt.pending
        assert signal.set_wakeup_fd(-1) == writer
        assert os.read(reader, 8) == bytes([signal.SIGINT])
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)


def test_no_thread_is_left_behind():
    before = threading.active_count()
    for _ in range(3):
        with DelayedInterrupt():
            assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_an_interactive_session_is_not_ended(interactive):
    """No thread watches for a second signal."""
    before = threading.active_count()
    with DelayedInterrupt():
        assert threading.active_count() == before


def test_the_error_of_fit_is_a_keyboard_interrupt():
    losses = np.array([1.0, 2.0])
    error = Interrupted(losses)
    assert isinstance(error, KeyboardInterrupt)
    assert error.losses is losses
    assert str(error) == (
        "fit: interrupted after 2 steps. Call `fit` again to continue from "
        "there."
    )


# --- real signals -----------------------------------------------------------

SETUP = """
import logging, sys, time
import jax, jax.numpy as jnp, numpy as np
from common import build
from common.errors import Interrupted

SORTS = int(sys.argv[1])

def loss(predictions, targets):  # slow to compile
    x = predictions
    for i in range(SORTS):
        x = jnp.sort(x, axis=i % 2) + predictions * (i + 1)
    return jnp.mean((predictions - targets) ** 2) + 1e-30 * jnp.mean(x)

def make():
    return build("deep_mlp", backend="reference", loss=loss, depth=1, size=3)

jax.config.update("jax_enable_compilation_cache", False)
xs = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
ys = np.sin(xs)

def fit(trainer, epochs, batch_size):
    try:
        trainer.fit(xs, ys, epochs=epochs, batch_size=batch_size)
    except Interrupted as error:
        step = int(trainer.state().step)
        print("interrupted", len(error.losses), step, flush=True)
    else:
        print("completed", flush=True)
"""
RUNNING = (
    SETUP
    + """
trainer = make()
trainer.fit(xs, ys, batch_size=4)  # compiles
for _ in range(3):
    before = int(trainer.state().step)
    print("ready", before, flush=True)
    fit(trainer, 10**6, 4)
    time.sleep(0.2)

whole = make()
steps = int(trainer.state().step)
whole.fit(xs, ys, epochs=steps // 16 + 1, batch_size=4)
trainer.fit(xs, ys, epochs=1 if steps % 16 else 0, batch_size=4)
if not steps % 16:
    trainer.fit(xs, ys, epochs=1, batch_size=4)
same = [np.array_equal(x, y) for x, y in zip(whole.leaves, trainer.leaves)]
print("same", all(same), flush=True)
"""
)
COMPILING = (
    SETUP
    + """
jax.config.update("jax_log_compiles", True)
for batch_size in (16, 20, 24):
    fit(make(), 100, batch_size)
"""
)
COMPILES = "Finished jaxpr to MLIR module conversion jit(_run_chunk)"
COMPILED = "Finished XLA compilation of jit(_run_chunk)"


@contextlib.contextmanager
def process(program: str, sorts: int) -> Iterator[subprocess.Popen[str]]:
    """Runs a program whose lines can be read while it runs."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", program, str(sorts)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},  # compiles slowly, as for users
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_for(child: subprocess.Popen[str], text: str) -> str:
    """Reads lines up to one that contains a text."""
    lines = []
    assert child.stdout is not None
    for line in child.stdout:
        lines.append(line)
        if text in line:
            return line
    raise AssertionError("".join(lines))


@pytest.mark.exhaustive
def test_three_interrupts_in_a_row_end_three_runs_at_a_step():
    """The run then continues as if nothing had happened."""
    with process(RUNNING, sorts=0) as child:
        for _ in range(3):
            before = int(wait_for(child, "ready").split()[1])
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
            _, losses, step = wait_for(child, "interrupted").split()
            assert int(step) - before == int(losses) > 0
        assert wait_for(child, "same") == "same True\n"
        assert child.wait() == 0


@pytest.mark.exhaustive
def test_an_interrupt_while_xla_compiles_waits_for_the_compiler():
    with process(COMPILING, sorts=8) as child:
        for _ in range(3):
            wait_for(child, COMPILES)
            child.send_signal(signal.SIGINT)
            wait_for(child, COMPILED)
            _, losses, step = wait_for(child, "interrupted").split()
            assert losses == step == "16"
        assert child.wait() == 0


@pytest.mark.exhaustive
def test_a_second_interrupt_while_xla_compiles_ends_the_process():
    with process(COMPILING, sorts=60) as child:
        wait_for(child, COMPILES)
        child.send_signal(signal.SIGINT)
        time.sleep(0.1)  # or both signals might be delivered as one
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        lines, _ = child.communicate(timeout=60)
        seconds = time.monotonic() - began
        assert child.returncode == 130
        assert COMPILED not in lines
        assert seconds < 2
