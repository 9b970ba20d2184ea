"""Which signals a training listens to, and which it leaves alone."""

import os
import signal
from collections.abc import Iterator

import pytest

from ssod.engine.stop import SIGNALS, StopSignal


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What was there before each test, put back after it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_the_first_of_each_is_noted_and_the_next_is_not_ours(name: str) -> None:
    number = signal.Signals[name]
    signal.signal(number, signal.SIG_DFL)
    with StopSignal().listening() as stop:
        assert signal.getsignal(number) == stop._receive  # else the signal would end this process
        os.kill(os.getpid(), number)
        assert stop.received and signal.getsignal(number) == signal.SIG_DFL


def test_a_run_under_nohup_goes_on_when_the_terminal_closes() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignal().listening() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.received and signal.getsignal(signal.SIGTERM) == stop._receive
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
