import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from imgrec.data.audit import audit
from imgrec.data.dataset import ArraySource, Info, Official
from imgrec.reporting import audit_page


class Files:
    def __init__(self, files, labels, columns):
        self.files, self.targets, self.told = files, np.array(labels, np.int32), columns

    def __len__(self):
        return len(self.files)

    def encoded(self, row):
        return self.files[row]

    def labels(self):
        return self.targets

    def columns(self):
        return self.told

    def where(self, row):
        return f"<b>{row}</b>.jpg"


class Balanced(HTMLParser):
    """Counts elements, and sees that each one that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


@pytest.fixture
def official(jpeg):
    train = [jpeg(seed, width=200 + seed) for seed in range(12)]
    train[3] = b"damaged"
    test = [train[0], jpeg(100)]
    columns = {"site": np.array(["<script>", "b"] * 6)}
    info = Info("own <images>", 2, ("a&b", "c"), (0, 0, 3), (0.5,) * 3, (0.5,) * 3, "x < y")
    return Official(Files(train, [0, 1] * 6, columns), Files(test, [1, 1], {}), info)


def test_the_page_is_whole_and_needs_nothing_else(official):
    page = audit_page.render(audit(official), official)
    elements = parse(page)
    for tag, attributes in elements:
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            assert attributes["alt"] and re.match(
                r"data:image/(png|jpeg);base64,|$", attributes["src"]
            )
    assert "http" not in page and "url(" not in page


def test_what_a_user_named_is_text(official):
    page = audit_page.render(audit(official), official)
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "own &lt;images&gt;" in page and "a&amp;b" in page and "x &lt; y" in page
    assert "<b>3</b>" not in page and "&lt;b&gt;3&lt;/b&gt;.jpg" in page


def test_pictures_are_the_images(official):
    page = audit_page.render(audit(official), official)
    shown = re.search(r'alt="train 0".*?src="(data:[^"]+)" alt="test 0"', page, re.S)
    picture = Image.open(io.BytesIO(base64.b64decode(shown[1].split(",")[1])))
    assert picture.size[0] == 96  # of 200
    expected = Image.open(io.BytesIO(official.test.files[0])).resize(picture.size)
    grey = [np.asarray(image.convert("L")).ravel() for image in (picture, expected)]
    assert np.corrcoef(*grey)[0, 1] > 0.98
    figures = [a for tag, a in parse(page) if tag == "figure"]
    assert figures == [{"class": "across conflicting"}]


def test_problems_lead(official):
    page = audit_page.render(audit(official, damaged_files=["shard 1 is damaged"]), official)
    summary = re.search(r'<ul class="summary">(.*?)</ul>', page, re.S)[1]
    assert summary.count('class="bad"') == 7 and 'class="good"' not in summary
    for part in (
        "1 of test have a copy in train",
        "images of train that cannot be read: 1",
        "shard 1",
    ):
        assert part in summary


def test_small_images_stay_as_they_are_and_no_problem_is_said_so():
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(200) % 100
    info = Info(
        "noise", 100, tuple(f"class {i}" for i in range(100)), (8, 8, 1), (0.5,), (0.5,), ""
    )
    official = Official(ArraySource(images, labels), ArraySource(255 - images, labels), info)
    page = audit_page.render(audit(official), official)
    assert "No image of test has a copy in train" in page
    assert "40 other classes are not shown" in page
    elements = parse(page)
    sources = [attributes["src"] for tag, attributes in elements if tag == "img"]
    assert len(sources) == 60 * 2
    first = Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1])))
    assert (np.asarray(first) == images[0, ..., 0]).all()
    # One bar a class in each split; one size needs no chart.
    assert sum(tag == "rect" for tag, _ in elements) == 200
