import json
import math

import jax.numpy as jnp
import pytest

from imgrec.training.window import DivergenceError, MetricWindow


def on_device(loss, accuracy=0.5, learning_rate=0.1):
    numbers = {"loss": loss, "accuracy": accuracy, "learning_rate": learning_rate}
    return {name: jnp.float32(number) for name, number in numbers.items()}


def window_of(*losses, saved=()):
    window = MetricWindow(saved)
    for loss in losses:
        window.add(on_device(loss))
    return window


def test_closing_gives_the_means_and_the_last_learning_rate():
    window = MetricWindow()
    window.add(on_device(1.0, 0.25, 0.4))
    window.add(on_device(2.0, 0.5, 0.2))
    window.add(on_device(6.0, 0.75, 0.1))
    means = window.close(3)
    assert means == {"loss": 3.0, "accuracy": 0.5, "learning_rate": pytest.approx(0.1)}
    assert all(type(mean) is float for mean in means.values())


def test_closing_empties_the_window():
    window = window_of(1.0, 2.0)
    assert len(window) == 2
    window.close(2)
    assert len(window) == 0
    window.add(on_device(8.0))
    assert window.close(3)["loss"] == 8.0


def test_fetching_gives_numbers_and_keeps_the_window():
    window = window_of(1.0, 2.0)
    fetched = window.fetch(2)
    assert [step["loss"] for step in fetched] == [1.0, 2.0]
    assert all(type(value) is float for step in fetched for value in step.values())
    assert len(window) == 2
    assert window.close(2)["loss"] == 1.5


def test_what_was_fetched_does_not_change_with_later_steps():
    # A checkpoint writes it in the background while training goes on.
    window = window_of(1.0, 2.0)
    fetched = window.fetch(2)
    window.add(on_device(3.0))
    assert [step["loss"] for step in fetched] == [1.0, 2.0]


def test_an_empty_window_can_be_fetched():
    assert MetricWindow().fetch(5) == []


def test_a_window_that_was_cut_closes_as_one_that_was_not():
    losses = [0.1, 0.2, 1 / 3, 4.0]
    saved = json.loads(json.dumps(window_of(*losses[:2]).fetch(2)))
    assert window_of(*losses[2:], saved=saved).close(4) == window_of(*losses).close(4)


def test_taking_over_a_saved_window_leaves_it_as_it_was():
    saved = window_of(1.0).fetch(1)
    window_of(2.0, saved=saved)
    assert len(saved) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("read", ["fetch", "close"])
def test_divergence_names_the_first_step_whose_loss_is_not_finite(bad, read):
    window = window_of(1.0, 2.0, bad, 1.0, bad)
    with pytest.raises(DivergenceError, match=f"The loss is {bad} at step 98") as divergence:
        getattr(window, read)(100)
    assert divergence.value.step == 98


def test_divergence_is_found_behind_saved_steps():
    saved = window_of(1.0, 1.0).fetch(2)
    with pytest.raises(DivergenceError, match="at step 4"):
        window_of(1.0, math.nan, saved=saved).close(4)
