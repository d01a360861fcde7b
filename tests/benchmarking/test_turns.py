"""Turns of contestants in one process, and ratios of their speeds."""

from imgrec.benchmarking import turns


def test_a_comparison_is_by_the_best_turns_and_by_the_rounds():
    found = turns.compared([2.0, 4.0, 6.0], [1.0, 4.0, 2.0])
    assert found == {"minimum": 1.5, "median": 2.0, "values": [2.0, 1.0, 3.0]}


def test_contestants_of_one_process_change_their_order():
    order = []

    def contestant(name):
        return lambda: order.append(name) or 10

    rates = turns.take_turns({n: contestant(n) for n in "ab"}, 2, str)
    assert "".join(order) == "abbaab" and all(len(r) == 2 for r in rates.values())
