"""Ctrl-C and a polite kill end a command within two seconds, with a line that says how to go on.

Everything that is written is written atomically, so that a process may end at any moment. The signal is turned into a
KeyboardInterrupt, and whoever has something to say says it. If that does not happen, because a long computation in C
does not return to Python, a thread says it and ends the process. So does a second signal, at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import click

GRACE = 1.0
"""Seconds that a command has to end by itself."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.define
class Stop:
    """What was received, and what to say.

    Args:
        hint: how to go on, for the case that nobody else gets to say it.
        number: of the signal.
    """

    hint: str = "interrupted"
    number: int | None = None
    told: bool = False

    @property
    def code(self) -> int:
        """The exit code that shells expect: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.number or signal.SIGINT)

    def tell(self, message: str) -> click.exceptions.Exit:
        """Say why the command ends. Returns what to raise."""
        self.told = True
        click.echo(message, err=True)
        return click.exceptions.Exit(self.code)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Within this, SIGINT and SIGTERM raise KeyboardInterrupt, and the process ends soon afterwards."""
    stop = Stop()
    try:
        with _handled(stop) if threading.current_thread() is threading.main_thread() else contextlib.nullcontext():
            yield stop
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) and stop.number is None:
            raise
        ending = click.exceptions.Exit(stop.code) if stop.told else stop.tell(stop.hint)
        if stop.number is None:
            raise ending from None
        # everything is closed; what others have left for the end of the interpreter may take longer than people wait
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code)


@contextlib.contextmanager
def _handled(stop: Stop) -> Iterator[None]:
    def note(number: int, frame: Any) -> None:
        del frame
        if stop.number is not None:
            os._exit(128 + number)
        stop.number = number
        raise KeyboardInterrupt

    reader, writer = socket.socketpair()
    writer.settimeout(0)
    # a signal that is ignored from outside (nohup, a shell's background job) stays ignored
    before = {n: signal.signal(n, note) for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, stop), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()  # the thread reads the end, and ends


def _watch(reader: socket.socket, stop: Stop) -> None:
    """End the process if the main thread does not: it may be in the middle of a computation that does not look up."""
    with reader:
        number = _read(reader)
        if number is None:
            return
        if select.select([reader], [], [], GRACE)[0] and _read(reader) is None:
            return
        if not stop.told:
            os.write(2, f"{stop.hint}\n".encode())
        os._exit(128 + number)


def _read(reader: socket.socket) -> int | None:
    """The next of our signals; None at the end."""
    while received := reader.recv(1):
        if received[0] in _SIGNALS:
            return received[0]
    return None
