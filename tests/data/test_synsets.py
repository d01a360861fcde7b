"""The names of ImageNet's classes, as they ship with the project."""

import fnmatch
import importlib.resources
import tomllib
from pathlib import Path

from imgrec.data import synsets


def test_the_thousand_names_are_in_the_order_of_every_models_logits():
    names = synsets.class_names()
    assert len(set(names)) == 1000
    for index, name in {
        0: "tench",
        1: "goldfish",
        207: "golden retriever",
        281: "tabby",
        282: "tiger cat",
        285: "Egyptian cat",
        388: "giant panda",
        985: "daisy",
        999: "toilet tissue",
    }.items():
        assert names[index] == name
    # Two pairs share a name.
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")
    assert (names[638], names[639]) == ("maillot (n03710637)", "maillot (n03710721)")


def test_by_wordnet_id_and_a_file_of_ones_own_goes_first(tmp_path):
    wnids = ["n02123045", "n99999999"]
    assert synsets.class_names(wnids) == ("tabby", "n99999999")
    (tmp_path / "synset_words.txt").write_text("n02123045 cat, puss\n")
    assert synsets.class_names(wnids, [tmp_path]) == ("cat", "n99999999")


def test_wheels_have_the_file():
    file = synsets._SHIPPED
    assert importlib.resources.files("imgrec.data").joinpath(file.name).is_file()
    lines = file.read_text().splitlines()
    assert lines == sorted(lines) and all(
        fnmatch.fnmatch(s, "n" + "[0-9]" * 8 + " ?*") for s in lines
    )
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["imgrec.data"]
    assert any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns)


def test_the_thousand_ids_are_in_the_order_of_the_logits():
    wnids = synsets.wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert wnids[0] == "n01440764"
    assert len(synsets.class_names()) == 1000
