"""ODIN on a network whose gradient is known by hand."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import softmax

from imgrec.data import ArraySource, Split
from imgrec.evaluation.subject import Subject
from imgrec.evaluation.unknown import odin

RNG = np.random.default_rng(0)
N, SHAPE, CLASSES = 21, (4, 3, 2), 5
IMAGES = RNG.integers(0, 256, (N, *SHAPE), dtype=np.uint8)
KERNEL = RNG.normal(size=(24, CLASSES)).astype(np.float32)
MEAN, STD = (0.3, 0.6), (0.5, 0.25)


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(CLASSES, use_bias=False)(images.reshape(len(images), -1))


def subject(kernel=KERNEL):
    return Subject(
        module=Linear(),
        variables={"params": {"Dense_0": {"kernel": kernel}}},
        mean=MEAN,
        std=STD,
        image_shape=SHAPE,
        class_names=tuple("abcde"),
        batch_size=8,
        put=jax.device_put,
    )


def split(n=N):
    return Split("test", ArraySource(IMAGES, np.arange(N) % CLASSES), np.arange(n))


def logits(images):
    return ((images - MEAN) / STD).reshape(len(images), -1) @ KERNEL


@pytest.mark.parametrize("step", [0.0, 0.01, 0.3])
def test_a_score_is_the_papers_equations_by_hand(step):
    images = IMAGES / 255
    probabilities = softmax(logits(images) / odin.TEMPERATURE, axis=1)
    best = probabilities.argmax(axis=1)
    # d log p_best / dx = W (onehot(best) - p) / (T std), of which only the sign is taken.
    pull = (np.eye(CLASSES)[best] - probabilities) @ KERNEL.T
    moved = images + step * np.sign(pull).reshape(images.shape)
    expected = softmax(logits(moved) / odin.TEMPERATURE, axis=1).max(axis=1)
    np.testing.assert_allclose(odin.scores(subject(), split(), step), expected, rtol=1e-6)


def test_the_step_is_that_with_the_greatest_mean_on_validation():
    chosen = odin.choose(subject(), split(13))
    assert chosen["n"] == 13 and chosen["temperature"] == 1000
    assert [step for step, _ in chosen["tried"]] == list(odin.STEPS)
    for step, mean in chosen["tried"][::3]:
        expected = odin.scores(subject(), split(13), step).mean()
        assert mean == pytest.approx(expected, rel=1e-6)
    assert chosen["step"] == max(chosen["tried"], key=lambda tried: tried[1])[0]
    assert chosen["step"] == odin.STEPS[-1]  # nothing bends in a linear network


def test_of_many_validation_images_a_part_with_all_classes_chooses(monkeypatch):
    monkeypatch.setattr(odin, "_MOST_TO_CHOOSE", 10)
    assert odin.choose(subject(), split())["n"] == 10


def test_all_sets_are_scored_with_the_step_that_was_chosen():
    found = odin.measure(subject(), split(13), {"test": split(), "digits": split(2)})
    assert found["chosen"] == odin.choose(subject(), split(13))
    assert list(found["scores"]) == ["validation", "test", "digits"]
    for name, n in {"validation": 13, "test": N, "digits": 2}.items():
        expected = odin.scores(subject(), split(n), found["chosen"]["step"])
        np.testing.assert_array_equal(found["scores"][name], expected)


def test_a_network_that_diverged_takes_no_step():
    broken = subject(np.full_like(KERNEL, np.nan))
    assert odin.choose(broken, split())["step"] == 0
    assert not np.isfinite(odin.scores(broken, split(), 0.0)).any()
