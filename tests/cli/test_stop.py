"""Signals: the command ends soon, with the code that shells expect and a line that says how to go on."""

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

BODY = """
import hashlib, signal, sys, time
import click
from scoreplug.cli._stop import stoppable

def computing():  # in C, a minute long: it does not look up for signals
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)

def waiting():
    time.sleep(60)

def closing():
    try:
        time.sleep(60)
    finally:
        time.sleep(60)

def telling():
    try:
        time.sleep(60)
    except KeyboardInterrupt as error:
        raise stop.tell("told") from error

@click.command()
def main():
    global stop
    with stoppable() as stop:
        stop.hint = "a hint"
        print("ready", flush=True)
        globals()[sys.argv.pop()]()

main(args=[])
"""


def ended(what, *signals):
    """Exit code, standard error, and seconds after the first signal."""
    command = [sys.executable, "-c", BODY, what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)  # so that it is in the middle of it
        began = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        code = process.wait(30)
        seconds = time.monotonic() - began
        return code, process.stderr.read(), seconds


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "kill"])
@pytest.mark.parametrize(
    ("what", "said"),
    [("waiting", "a hint\n"), ("telling", "told\n"), ("computing", "a hint\n"), ("closing", "a hint\n")],
)
def test_a_signal_ends_the_command_in_two_seconds_with_one_line(what, said, number, code):
    found, text, seconds = ended(what, number)

    assert (found, text) == (code, said)
    assert seconds < 2


def test_a_second_signal_ends_it_at_once():
    code, _, seconds = ended("closing", signal.SIGINT, signal.SIGINT)

    assert code == 130
    assert seconds < 0.9  # before the second that the first one leaves


def test_without_a_signal_nothing_is_changed():
    from scoreplug.cli._stop import stoppable

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stoppable():
        assert signal.getsignal(signal.SIGINT) is not before[0]

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(ZeroDivisionError), stoppable():
        raise ZeroDivisionError


def test_a_benchmark_stops_with_its_rows_and_the_code_of_the_signal(tmp_path):
    out = tmp_path / "bench"
    command = [sys.executable, "-m", "scoreplug", "bench", "--out", str(out), "--n", "2000", "--seeds", "20"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not list(out.glob("rows/*.json")) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        code, text = process.wait(30), process.stderr.read()

    assert code == 143
    assert "rows are kept; the same command with --out" in text
    assert "Traceback" not in text
