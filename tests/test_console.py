"""What people see of long work, and how they stop it."""

import io
import re
import signal

import pytest
from rich.console import Console

from imgrec import console


def piped() -> tuple[Console, io.StringIO]:
    return Console(file=(file := io.StringIO()), width=200), file


def test_in_a_file_each_stage_is_one_line():
    plain, file = piped()
    with console.bar(plain) as shown:
        for done in range(3):
            shown("batches [of test]", done, 12_345)
        shown("sections", 1, 2)
    # A name in brackets is no markup, and no line is written twice.
    assert file.getvalue() == "batches [of test]: 12,345\nsections: 2\n"


def test_on_a_terminal_each_stage_is_a_bar_that_fills():
    file = io.StringIO()
    terminal = Console(file=file, width=120, force_terminal=True)
    with console.bar(terminal) as shown:
        shown("batches", 0, 7)
        shown("batches", 7, 7)
        shown("sections", 2, 5)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).splitlines()[-2:]
    assert re.match(r"batches +━+ 7/7 .*elapsed", last[0])
    assert re.match(r"sections ━+[╸╺ ━]*2/5 ", last[1])


def test_what_is_redirected_is_neither_wrapped_nor_coloured(monkeypatch, capsys):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    line = "1.5 runs/a " + "word " * 60
    console.create().print(line)
    assert capsys.readouterr().out == line + "\n"


def test_sigterm_interrupts_and_is_then_what_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), console.interruptible():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the work went on")
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_work_that_ends_by_itself_sigterm_is_what_it_was():
    def mine(number, frame):
        del number, frame

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with console.interruptible():
            assert signal.getsignal(signal.SIGTERM) is not mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
