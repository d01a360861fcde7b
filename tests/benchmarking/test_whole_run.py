import pytest

from imgrec.benchmarking import latency, passes, start, synthetic, turns, whole_run
from imgrec.errors import UserError


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


def test_input_and_evaluation_count_all_their_images(tiny):
    found = passes.measure_input(tiny, rounds=1, batches=2, told=str)
    assert set(found["images_per_second"]) == {"host", "resident"}
    found = passes.measure_evaluation(tiny, rounds=2, told=str)
    assert "96 images" in found["claim"] and len(found["values"]) == 2


def test_evaluation_needs_something_to_evaluate(tiny):
    tiny.data.validation = "0"
    with pytest.raises(UserError, match=r"--config.data.validation=10%"):
        passes.measure_evaluation(tiny, rounds=1)


def test_latency_is_told_by_its_percentiles(tiny):
    ms = latency.measure(tiny, calls=10)["milliseconds"]
    assert ms["least"] <= ms["p50"] <= ms["p95"] <= ms["p99"] <= ms["most"]


def test_noise_has_the_shape_of_the_data_set_that_is_not_read(tiny, tmp_path):
    tiny.data.root = str(tmp_path)
    for name, shape, classes in (
        ("cifar100", (32, 32, 3), 100),
        ("mnist", (28, 28, 1), 10),
        ("digits", (8, 8, 1), 10),
    ):
        tiny.data.dataset = name
        found = synthetic.dataset(tiny.data, 6)
        assert (found.info.image_shape, found.info.num_classes) == (shape, classes)
        assert len(found.train) == 6 and found.train[0]["image"].shape == shape
    tiny.data.dataset, tiny.data.image_size = "imagenet", 16
    assert synthetic.dataset(tiny.data, 1).info.image_shape == (16, 16, 3)


def test_a_start_that_fails_says_what_the_command_said(tmp_path):
    with pytest.raises(start.StartError, match=r"No config file 'nothing.py'"):
        start._first_step(["--config=nothing.py"], tmp_path / "cache", tmp_path / "run")


def test_a_comparison_is_by_the_best_turns_and_by_the_rounds():
    found = turns.compared([2.0, 4.0, 6.0], [1.0, 4.0, 2.0])
    assert found == {"minimum": 1.5, "median": 2.0, "values": [2.0, 1.0, 3.0]}


def test_contestants_of_one_process_change_their_order():
    order = []

    def contestant(name):
        return lambda: order.append(name) or 10

    rates = turns.take_turns({n: contestant(n) for n in "ab"}, 2, str)
    assert "".join(order) == "abbaab" and all(len(r) == 2 for r in rates.values())
