import io

import pytest
from rich.console import Console

from imgrec.training.progress import TrainProgress

SCALARS = {"loss": 1.23456, "accuracy": 0.5, "learning_rate": 0.0125}


@pytest.fixture
def screen():
    return io.StringIO()


def train(console):
    with TrainProgress(console, total_steps=100, done=40) as progress:
        progress.advance(49)
        progress.logged(50, SCALARS, 12_345.6)
        progress.evaluated(50, {"validation/accuracy": 0.75, "validation/loss": 0.5})


def test_without_a_terminal_there_is_a_line_a_log_interval(screen):
    train(Console(file=screen, width=200))
    assert screen.getvalue() == (
        "step 50/100: loss 1.2346, accuracy 0.5000, 12,346 images/s, learning rate 0.0125\n"
        "step 50/100: validation/accuracy 0.7500, validation/loss 0.5000\n"
    )


def test_on_a_terminal_there_is_a_bar_and_evaluations_stay_as_lines(screen):
    train(Console(file=screen, width=200, force_terminal=True, color_system=None))
    shown = screen.getvalue()
    assert "40/100" in shown  # where a resumed run starts
    assert "50/100" in shown
    assert "loss 1.2346, accuracy 0.5000, 12,346 images/s" in shown
    assert "learning rate" not in shown
    assert "step 50/100: validation/accuracy 0.7500, validation/loss 0.5000" in shown
