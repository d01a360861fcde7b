import re

import pytest

from imgrec import durations
from imgrec.errors import UserError


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("30ep", 30, "ep"),
        ("0.5ep", 0.5, "ep"),
        ("5000st", 5000, "st"),
        ("64kst", 64_000, "st"),
        ("1.2Mex", 1_200_000, "ex"),
        ("10%", 10, "%"),
        ("12.5%", 12.5, "%"),
        ("0st", 0, "st"),
        (" 30 ep ", 30, "ep"),
        ("1.5 k st", 1500, "st"),
    ],
)
def test_reads_number_scale_and_unit(text, amount, unit):
    assert durations.parse(text) == durations.Duration(float(amount), unit)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1ep", 8),  # 1000 / 128 = 7.8125
        ("30ep", 234),  # 234.375
        ("17st", 17),
        ("1.28kex", 10),
        ("1.2Mex", 9375),
        ("25%", 50),
        ("100%", 200),
        ("0%", 0),
    ],
)
def test_counts_steps(text, steps):
    duration = durations.parse(text)
    assert duration.steps(batch_size=128, examples=1000, total_steps=200) == steps


@pytest.mark.parametrize("batch_size", [1, 7, 128, 1000, 4096])
@pytest.mark.parametrize("epochs", [1, 3, 90])
def test_epochs_are_counted_to_the_nearest_step(epochs, batch_size):
    steps = durations.parse(f"{epochs}ep").steps(batch_size=batch_size, examples=1000)
    assert abs(steps * batch_size - epochs * 1000) <= batch_size / 2


def test_a_share_needs_a_run_to_be_a_share_of():
    with pytest.raises(UserError, match="'10%' needs a whole to be a share of; use ep, st or ex"):
        durations.parse("10%").steps(batch_size=128, examples=1000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "ep",
        "-1ep",
        "1.ep",
        ".5ep",
        "1e3st",
        "ten ep",
        "5 epochs",
        "5Kst",
        "1Gex",
        "1,5ep",
    ],
)
def test_refuses_other_texts_and_shows_the_grammar(text):
    with pytest.raises(UserError, match=re.escape(f"config.train.duration={text!r}")) as refusal:
        durations.parse(text, "config.train.duration")
    for example in ("'30ep'", "'5000st'", "'1.2Mex'", "'10%'"):
        assert example in str(refusal.value)
