"""Control-C during training.

Python raises `KeyboardInterrupt` wherever the program happens to be: in the
middle of a chunk of steps, or while NumPy converts an array, which turns it
into a `ValueError`. So `fit` handles the signal itself.
"""

import os
import signal
import socket
import sys
import threading

EXIT_SECONDS = 0.5
"""How long the program may take to end after a second Control-C."""


class DelayedInterrupt:
    """A context in which the first Control-C only sets a flag.

    The second Control-C raises `KeyboardInterrupt` at once. Python cannot do
    that while the main thread waits for the XLA compiler or for a compiled
    program. If the program has not left the context `EXIT_SECONDS` later, the
    process ends with exit status 130, except in an interactive session, where
    that would lose the user's variables.

    Nothing is installed outside the main thread, or if the program has
    replaced Python's handler by its own. The handler is restored on exit.

    Attributes:
        pending: whether Control-C was pressed.
    """

    def __init__(self):
        self.pending = False
        self._repeated = False
        self._closing = False
        self._watcher: _Watcher | None = None

    def __enter__(self) -> "DelayedInterrupt":
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._is_installed = (
            in_main_thread
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._is_installed:
            signal.signal(signal.SIGINT, self._handle)
            if not hasattr(sys, "ps1"):
                self._watcher = _Watcher()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._closing = True
        if self._watcher is not None:
            self._watcher.close()
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._repeated and isinstance(error, Exception):
            raise KeyboardInterrupt from error

    def _handle(self, number, frame) -> None:
        if self.pending and not self._closing:
            self._repeated = True
            signal.default_int_handler(number, frame)
        self.pending = True


class _Watcher:
    """Ends the process if a second Control-C has no effect.

    The C handler writes each signal to a socket when it arrives, even while
    the main thread is in compiled code. A thread reads them.
    """

    def __init__(self):
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._closed = threading.Event()
        self._previous = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        if self._previous != -1:  # an event loop reads the signals
            signal.set_wakeup_fd(self._previous)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops watching."""
        if self._previous == -1:
            signal.set_wakeup_fd(-1)
        self._closed.set()
        self._writer.send(b"\0")
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _watch(self) -> None:
        presses = 0
        while presses < 2 and not self._closed.is_set():
            presses += self._reader.recv(64).count(signal.SIGINT)
        if not self._closed.wait(EXIT_SECONDS):
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # the progress bar hid the cursor
            os._exit(128 + signal.SIGINT)
