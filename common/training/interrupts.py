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


class DelayedInterrupt:
    """A context in which the first Control-C only sets a flag.

    The second Control-C ends the process at once, with exit status 130.
    An exception would not do: Python cannot raise it while the main thread
    waits for a compiled program, and a process that leaves the XLA compiler
    by an exception may crash when it exits. In an interactive session, whose
    process holds the user's variables, the second Control-C raises
    `KeyboardInterrupt` instead.

    Nothing is installed outside the main thread, or if the program has its
    own handler. The previous handler is restored on exit.

    Attributes:
        pending: whether Control-C was pressed.
    """

    def __init__(self):
        self.pending = False
        self._raised = False
        self._closing = False
        self._watcher: _Watcher | None = None

    def __enter__(self) -> "DelayedInterrupt":
        self._is_installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._is_installed:
            signal.signal(signal.SIGINT, self._handle)
            if not is_interactive():
                self._watcher = _Watcher()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._closing = True
        if self._watcher is not None:
            self._watcher.close()
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._raised and isinstance(error, Exception):
            raise KeyboardInterrupt from error

    def _handle(self, number, frame) -> None:
        if self.pending and not self._closing:
            self._raised = True
            signal.default_int_handler(number, frame)
        self.pending = True


def is_interactive() -> bool:
    """Returns whether this is a Python prompt, an IPython or a notebook."""
    return hasattr(sys, "ps1")


class _Watcher:
    """Ends the process at the second Control-C.

    The C handler writes each signal to a socket when it arrives, even while
    the main thread is in compiled code. A thread reads them.
    """

    def __init__(self):
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
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
        self._writer.send(b"\0")
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _watch(self) -> None:
        presses = 0
        while True:
            received = self._reader.recv(64)
            presses += received.count(signal.SIGINT)
            if presses >= 2:
                if sys.stderr.isatty():  # the progress bar hid the cursor
                    os.write(2, b"\x1b[?25h\n")
                os._exit(128 + signal.SIGINT)
            if 0 in received:
                return
