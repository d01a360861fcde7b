import pytest
from markdown_it import MarkdownIt

from imgrec.reporting import markdown

NAMES = [
    "plain",
    "a_b_c and *bold* `code`",
    "<script>alert(1)</script> & co &lt;",
    "[link](http://x) ![picture](y)",
    "pipe | and \\ backslash \\| both",
    "# heading",
    "two\nlines\n\n- and a list",
    "~~gone~~ $x$ {y}",
]


def html(text):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def shown(text):
    """The text that a reader sees, of HTML without any element."""
    import html as entities

    return entities.unescape(text)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name):
    rendered = html(f"Of {markdown.escaped(name)}.")
    assert rendered.startswith("<p>Of ") and rendered.endswith(".</p>\n")
    inner = rendered[len("<p>Of ") : -len(".</p>\n")]
    assert "<" not in inner
    assert shown(inner) == " ".join(name.split())


def test_tables_keep_their_columns_whatever_is_in_them():
    rendered = html(markdown.table(("a|b", "c"), [(name, 1.5) for name in NAMES]))
    assert rendered.count("<tr>") == len(NAMES) + 1 and rendered.count("<td>") == 2 * len(NAMES)
    for name in NAMES:
        assert " ".join(name.split()) in shown(rendered)


@pytest.mark.parametrize("text", ["python -m x --a='b'", "```\nfence", "````"])
def test_code_is_code_whatever_is_in_it(text):
    rendered = shown(html(markdown.code(text)))
    assert rendered == f'<pre><code class="language-text">{text}\n</code></pre>\n'


def test_what_a_person_wrote_is_kept_and_empty_blanks_are_not():
    first = markdown.blank("use", "what for?", {}) + "\n\n" + markdown.blank("who", "by whom?", {})
    assert "> **To be filled in by the owner:** what for?" in first
    assert markdown.filled(first) == {}
    written = first.replace("> **To be filled in by the owner:** what for?", "Counting\n\n*birds*.")
    kept = markdown.filled(written)
    assert kept == {"use": "Counting\n\n*birds*."}
    again = markdown.blank("use", "what for?", kept)
    assert markdown.filled(again) == kept
    assert html(again).count("<p>") == 2 and "owner:use" not in shown(html(again)).split("-->")[1]


def test_lists():
    assert html(markdown.listed(["a", "b"])).count("<li>") == 2
