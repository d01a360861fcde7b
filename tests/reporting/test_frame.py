import base64
import re
from html.parser import HTMLParser

from imgrec.reporting import frame
from imgrec.reporting.parts import Details, Part, Picture, Table, Text

BAD = '<script>alert("&")</script>'


class Balanced(HTMLParser):
    """Counts elements, and sees that each one that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page(**changes):
    items = [
        Text(BAD),
        Text("explains", faint=True),
        Table((BAD, "x"), [(BAD, "1")], caption=BAD),
        Picture("a.svg", b"<svg/>", BAD, wide=True),
        Details(BAD, [Picture("b.png", b"png", "inner"), Text("folded")]),
    ]
    part = Part("here", BAD, BAD, items)
    given = {"title": BAD, "about": BAD, "shown": [part], "missing": [(BAD, BAD)]}
    return frame.render(**given | {"missing_about": BAD} | changes)


def test_everything_is_there_and_closed():
    parser = Balanced()
    parser.feed(page())
    assert parser.open == []
    tags = [tag for tag, _ in parser.seen]
    assert tags.count("table") == tags.count("details") == 1 and tags.count("img") == 2
    links = [attributes["href"] for tag, attributes in parser.seen if tag == "a"]
    anchors = [attributes.get("id") for tag, attributes in parser.seen if tag == "section"]
    assert links == ["#here", "#missing"] and anchors == ["here", "missing"]


def test_what_a_user_named_is_text():
    assert "<script" not in page()


def test_pictures_are_inside():
    sources = re.findall(r'<img src="([^"]+)"', page())
    assert [source.partition(",")[0] for source in sources] == [
        "data:image/svg+xml;base64",
        "data:image/png;base64",
    ]
    assert [base64.b64decode(s.partition(",")[2]) for s in sources] == [b"<svg/>", b"png"]


def test_nothing_missing_is_not_mentioned():
    assert "What is missing" not in page(missing=[])
