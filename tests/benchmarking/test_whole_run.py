import pytest

from imgrec.benchmarking import whole_run


def test_every_round_has_a_turn_of_the_loop_and_one_of_the_bare_step(tiny):
    said = []
    found = whole_run.measure(tiny, rounds=2, steps=2, told=said.append)
    assert found["n"] == len(found["values"]) == len(said) == 2
    rates = found["images_per_second"]
    assert found["values"] == pytest.approx(
        [loop / bare for loop, bare in zip(rates["loop"], rates["bare"], strict=True)]
    )
    # A checkpoint was written in every round.
    assert all(seconds > 0 for seconds in found["checkpoint_seconds"])


@pytest.mark.parametrize("steps_per_epoch, counted", [(20.0, 0.1), (1.0, 1.0)])
def test_of_a_checkpoint_counts_what_falls_on_a_round_at_one_an_epoch(
    monkeypatch, steps_per_epoch, counted
):
    now = [0.0]
    monkeypatch.setattr(whole_run.time, "perf_counter", lambda: now[0])
    watch = whole_run._Turns(lambda: 3.0, 2, 1, steps_per_epoch, str)
    with pytest.raises(whole_run._EnoughError):
        for step in range(6):
            watch.observe(step, None)
            now[0] += 2.0  # a step
            if step % 2:
                with watch.clock("checkpoint"):
                    now[0] += 1.0
    assert watch.loops == [pytest.approx(4.0 + counted)] and watch.bares == [3.0]
