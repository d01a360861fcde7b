"""Modules of one's own are found, imported once, and answered in words where they do not work."""

import sys

import pytest

from imgrec import data, extensions, models
from imgrec.config import Experiment
from imgrec.errors import UserError
from imgrec.tasks import registry
from imgrec.tasks.classification import Classification


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write("name", text): a module in the current folder."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> Experiment:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
        return Experiment(imports=(name,))

    return write


def test_a_module_is_imported_once(write):
    experiment = write(
        "own_counted", "import sys\nsys.own_count = getattr(sys, 'own_count', 0) + 1"
    )
    try:
        assert extensions.load(extensions.load(experiment)) is experiment
        assert sys.own_count == 1
    finally:
        del sys.own_count


@pytest.mark.parametrize(
    "text, said",
    [
        ("1 / 0", "does not work: ZeroDivisionError"),
        ("import nothing_of_the_kind", "there is no module 'nothing_of_the_kind'"),
    ],
)
def test_a_module_that_does_not_work_is_named(text, said, write):
    with pytest.raises(UserError, match=f"own_broken.*{said}"):
        extensions.load(write("own_broken", text))


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"no module 'own_nowhere'.*current folder"):
        extensions.load(Experiment(imports=("own_nowhere",)))


def test_names_are_registered_once():
    with pytest.raises(ValueError, match="'digits' is registered twice"):
        data.register("digits", lambda config, root: None)
    with pytest.raises(ValueError, match="'classification' is registered twice"):
        registry.register("classification", Classification)


def test_a_task_that_is_not_known_is_answered_with_those_that_are():
    with pytest.raises(UserError, match="Did you mean 'classification'"):
        registry.find("clasification")


def test_examples_register_what_they_say():
    extensions.load(Experiment(imports=("examples.own_dataset", "examples.own_model")))
    assert "gratings" in data.names() and "patches32" in models.list_models()
