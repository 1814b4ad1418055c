import os
import signal
import threading

import pytest

from oncoseg.stopping import StopRequest, Terminated, name_of, orderly_termination, stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_and_the_old_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert stop.signal == 0
        os.kill(os.getpid(), number)
        assert stop.signal == number
    assert signal.getsignal(number) is before
    assert StopRequest.signal == 0


def test_a_second_ctrl_c_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requests():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_becomes_an_error_that_cleans_up(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    cleaned = []
    with pytest.raises(Terminated) as asked, orderly_termination():
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append("up")
    assert cleaned == ["up"]
    assert (asked.value.signal, name_of(asked.value)) == (number, number.name)
    assert signal.getsignal(number) is before


def test_while_training_sigterm_is_a_request() -> None:
    with orderly_termination(), stop_requests() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_other_threads_have_no_signals_and_work_all_the_same() -> None:
    asked: list[int] = []

    def work() -> None:
        with orderly_termination(), stop_requests() as stop:
            asked.append(stop.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [0]
