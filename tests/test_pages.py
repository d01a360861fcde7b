"""Reports in a real browser: every figure is drawn, nothing is fetched, the console is silent."""

import re
import shutil
import subprocess

import pytest

from imgrec import report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
)
# Put into a copy of the page, so that what is drawn can be read off it.
COUNT = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  const drawn = images.filter((i) => i.complete && i.naturalWidth > 1 && i.naturalHeight > 1);
  const loaded = performance.getEntriesByType("resource");
  const fetched = loaded.filter((e) => !e.name.startsWith("data:"));
  document.title = `${images.length} ${drawn.length} ${fetched.length}`;
});
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium here; .ci/run installs one"),
]


def look(page, tmp_path):
    """(images, images that were drawn, things fetched), and what the console said."""
    copy = tmp_path / "page.html"
    copy.write_text(page.read_text().replace("</head>", COUNT + "</head>", 1))
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
    )
    title = re.search(r"<title>(\d+) (\d+) (\d+)</title>", done.stdout)
    assert title, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return tuple(map(int, title.groups())), console


def test_every_figure_of_a_report_is_drawn(finished, tmp_path):
    out = finished / "run" / "evaluation" / "test"
    (images, drawn, fetched), console = look(out / "report.html", tmp_path)
    kept = [p for p in out.iterdir() if p.suffix in (".svg", ".png")]
    assert images == drawn == len(kept) > 15
    assert fetched == 0 and console == []


def test_a_comparison_of_runs_is_drawn(finished, tmp_path, capsys):
    runs = [str(finished / "run"), str(tmp_path / "copy")]
    shutil.copytree(*runs)
    assert report.main(["report", *runs, f"--out={tmp_path / 'comparison.html'}"]) == 0
    (images, drawn, fetched), console = look(tmp_path / "comparison.html", tmp_path)
    assert images == drawn and fetched == 0 and console == []


def test_a_figure_that_is_broken_would_be_noticed(finished, tmp_path):
    page = tmp_path / "broken.html"
    text = (finished / "run" / "report.html").read_text()
    page.write_text(
        re.sub(r'src="data:image/svg[^"]+"', 'src="data:image/svg+xml;base64,AAAA"', text, count=1)
    )
    (images, drawn, _), _ = look(page, tmp_path)
    assert drawn == images - 1
