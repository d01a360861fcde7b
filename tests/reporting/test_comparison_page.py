import base64
import json
import re

import pytest

from imgrec.reporting import comparison_page, saved_run
from imgrec.reporting.side_by_side import side_by_side


def page(*folders):
    return comparison_page.render(side_by_side(saved_run.read_all(folders), "test", count=100))


def pictures(html):
    """File names with the SVG text of each picture."""
    found = re.findall(
        r'src="data:image/svg\+xml;base64,([^"]+)"\nalt="[^"]*" data-file="(.*?)"', html
    )
    return {name: base64.b64decode(content).decode() for content, name in found}


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_page_answers_in_its_order_and_needs_nothing_else(write_run):
    html = page(write_run("a"), write_run("b", seed=1, skill=4.0))
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == ["Which is better", "Results", "Learning curves", "Cost", "Configuration"]
    without_pictures = re.sub(r"base64,[^\"]+", "", html)
    assert "http" not in without_pictures and "<script" not in html and "url(" not in html
    assert "b is right more often than a" in html
    assert set(pictures(html)) == {
        "differences.svg",
        "accuracy.svg",
        "validation_accuracy.svg",
        "validation_loss.svg",
        "train_loss.svg",
        "train_accuracy.svg",
        "train_learning_rate.svg",
    }
    for svg in pictures(html).values():
        assert svg.startswith("<?xml") and svg.rstrip().endswith("</svg>")


def test_numbers_of_the_page_are_those_of_the_comparison(write_run):
    folders = [write_run("a"), write_run("b", seed=1, skill=4.0)]
    found = side_by_side(saved_run.read_all(folders), "test", count=100)
    text = text_of(comparison_page.render(found)).replace("\N{NO-BREAK SPACE}", " ")
    accuracy = found["measures"][0]
    for value, (low, high) in zip(accuracy["values"], accuracy["intervals"], strict=True):
        assert f"{100 * value:.2f} % [{100 * low:.2f}, {100 * high:.2f}]" in text
    (pair,) = found["pairs"]
    for count in ("both_right", "only_first_right", "only_other_right", "both_wrong"):
        assert f" {pair[count]} " in text
    assert "61.7 k" in text and "120 MFLOP" in text and "1 min 15 s" in text


def test_one_run_is_a_summary(write_run):
    html = page(write_run("a"))
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == ["Results", "Learning curves", "Cost", "Configuration"]
    assert "All fields" in html and "against" not in text_of(html)
    assert "differences.svg" not in html and "accuracy.svg" in html


def test_steps_become_images_where_batches_differ(write_run):
    same = page(write_run("a"), write_run("b"))
    other = page(write_run("c"), write_run("d", changes={"data.batch_size": 64}))
    said = "Batch sizes differ, so the axis counts images"
    assert said in other and said not in same


def test_a_run_without_history_keeps_the_others_colours(write_run):
    folders = [write_run("a"), write_run("b"), write_run("c")]
    (folders[0] / "metrics.jsonl").unlink()
    svg = pictures(page(*folders))["validation_loss.svg"]
    from imgrec.reporting.charts import COLOURS

    assert COLOURS[1] in svg and COLOURS[2] in svg
    for folder in folders[1:]:
        (folder / "metrics.jsonl").unlink()
    assert "Learning curves" not in page(*folders)


def test_what_is_missing_ends_the_page(write_run):
    first, other = write_run("a"), write_run("b")
    (other / "evaluation/test/predictions.npz").unlink()
    html = page(first, other)
    assert "b is not compared: it has no predictions" in html
    assert "differences.svg" not in html
    assert (
        "no predictions for test (python -m imgrec.evaluate"
        in html.partition("What is missing</h2>")[2]
    )


def test_what_a_user_named_is_text(write_run):
    first = write_run("<b>bold & $x$")
    (first / "input.json").write_text(json.dumps({"class_names": ["<script>", "b", "c"]}))
    html = page(first, write_run("b" * 80, changes={"data.root": "<i>"}))
    assert "<b>bold" not in html and "&lt;b&gt;bold &amp; $x$" in html
    assert "<i>" not in html and "&lt;i&gt;" in html and "<script" not in html


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"], list("abcdef")])
def test_names_are_listed_as_one_would(names):
    expected = {1: "a", 2: "a and b", 3: "a, b and c", 6: "a, b, c and 3 more"}
    assert comparison_page._listed(names) == expected[len(names)]
