import signal

import pytest

from imgrec.training.signals import EXIT_STOPPED, SIGNALS, StopRequest


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of pytest, which are put back whatever a test does."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_exit_code_says_try_again():
    assert EXIT_STOPPED == 75


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")]
)
def test_the_first_signal_is_remembered_and_nothing_more(number, name):
    with StopRequest() as stop:
        assert stop.received is None
        signal.raise_signal(number)
        assert stop.received == name
    assert stop.received == name


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_would_end_the_process(number):
    with StopRequest():
        signal.raise_signal(number)
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL] * 2


@pytest.mark.parametrize("raised", [True, False])
def test_afterwards_the_handlers_are_those_of_before(raised, handlers):
    with StopRequest():
        if raised:
            signal.raise_signal(signal.SIGTERM)
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers


def test_an_error_puts_the_handlers_back_too(handlers):
    with pytest.raises(ValueError, match=r"^bad$"), StopRequest():
        raise ValueError("bad")
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers


def test_nothing_is_installed_before_the_context_is_entered(handlers):
    StopRequest()
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers
