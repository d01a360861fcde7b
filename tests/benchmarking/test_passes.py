"""Delivered batches are those of the experiment, and all images are counted."""

import numpy as np
import pytest

from imgrec.benchmarking import passes
from imgrec.errors import UserError


def test_input_and_evaluation_count_all_their_images(tiny):
    found = passes.measure_input(tiny, rounds=1, batches=2, told=str)
    assert set(found["images_per_second"]) == {"host", "resident"}
    found = passes.measure_evaluation(tiny, rounds=2, told=str)
    assert "96 images" in found["claim"] and len(found["values"]) == 2


def test_evaluation_needs_something_to_evaluate(tiny):
    tiny.data.validation = "0"
    with pytest.raises(UserError, match=r"--config.data.validation=10%"):
        passes.measure_evaluation(tiny, rounds=1)


def test_what_is_delivered_is_what_was_taken():
    taken = []

    def stream():
        for i in range(9):
            taken.append(i)
            yield np.zeros(i)

    turn = passes.deliver(stream(), 3, 32)
    assert [turn(), turn()] == [96, 96]
    assert taken == [0, 1, 2, 3, 4, 5]  # a turn goes on where the one before it ended
