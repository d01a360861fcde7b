"""README, docs/ and results agree: no number there is typed by hand, and links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from imgrec import claims

ROOT = Path(__file__).parents[1]
tables = runpy.run_path(str(ROOT / "scripts" / "tables.py"))
PAGES = tables["pages"]()
RESULTS = claims.load_all(ROOT / "results")


def identity(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_tables_and_numbers_are_those_of_the_results(page):
    text = page.read_text()
    assert tables["render"](text, RESULTS) == text, "run: make tables"


def test_every_result_is_shown_and_a_changed_one_is_noticed():
    pages = "\n".join(page.read_text() for page in PAGES)
    for name, result in RESULTS.items():
        assert f"`{name}`" in pages
        shown = "mean" if result["metric"] == "test accuracy" else "value"
        changed = {**result, shown: (tables["_value"](result) or 1) * 0.9}
        assert tables["render"](pages, {**RESULTS, name: changed}) != pages, name


def test_a_number_in_prose_is_made_from_its_result():
    text = "has <!-- result: digits_lenet.mean .2% -->0 %<!-- end --> of them"
    made = tables["render"](text, {"digits_lenet": {"mean": 0.98765}})
    assert made == "has <!-- result: digits_lenet.mean .2% -->98.77 %<!-- end --> of them"


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_percentages_in_prose_have_a_source(page):
    """A measured accuracy is generated; one from a paper stands beside its authors and year."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    text = tables["TABLE"].sub("", tables["NUMBER"].sub("", text))
    for found in re.finditer(r"\d\d\.\d+ %", text):
        assert re.search(r"\([A-Z][^()]*\d{4}\)", text[found.end() : found.end() + 200]), found[0]


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_and_configs_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link
    named = set(re.findall(r"configs/(\w+\.py)", text))
    if page.stem == "main":
        named |= set(re.findall(r"`(\w+\.py)(?::\w+)?`", text))
    assert {name for name in named if not (ROOT / "configs" / name).exists()} == set()


def test_every_verb_has_a_page():
    verbs = [p.stem for p in (ROOT / "imgrec").glob("*.py") if "cli.run(main)" in p.read_text()]
    assert len(verbs) >= 9
    for verb in [*verbs, "models"]:
        text = (ROOT / "docs" / f"{verb}.md").read_text()
        assert f"python -m imgrec.{verb}" in text and "```text\n" in text, verb
        assert f"docs/{verb}.md" in (ROOT / "README.md").read_text()
