import pytest

from imgrec.errors import UserError, nearest, unknown

NAMES = ["cifar10", "cifar100", "digits", "fashion_mnist", "mnist"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("cifar10", "cifar10"),
        ("CIFAR10", "cifar10"),
        ("minst", "mnist"),
        ("fashion-mnist", "fashion_mnist"),
        ("digit", "digits"),
        ("zzz", None),
        ("", None),
    ],
)
def test_nearest(given, meant):
    assert nearest(given, NAMES) == meant


def test_nearest_gives_names_as_they_are_spelt():
    assert nearest("vit_s16", ["ViT_S16", "ResNet"]) == "ViT_S16"


def test_nearest_of_nothing_is_none():
    assert nearest("mnist", []) is None


def test_unknown_says_what_was_given_what_was_meant_and_what_there_is():
    error = unknown("data set", "minst", reversed(NAMES))
    assert isinstance(error, UserError)
    assert str(error) == (
        "Unknown data set 'minst'. Did you mean 'mnist'? "
        "Known: cifar10, cifar100, digits, fashion_mnist, mnist."
    )


def test_unknown_does_not_guess_wildly():
    assert str(unknown("model", "zzz", ["b", "a"])) == "Unknown model 'zzz'. Known: a, b."
