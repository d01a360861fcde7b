import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imgrec.data.view import View
from imgrec.errors import UserError
from imgrec.evaluation import answers
from imgrec.evaluation.answers import Calibration
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.subject import Subject
from imgrec.evaluation.unknown import ood_scores

NAMES = ("dark", "grey", "light")


class Brightness(nn.Module):
    """Logits by how near the mean level is to 0, a half and 1."""

    @nn.compact
    def __call__(self, images, train):
        level = images.mean(axis=(1, 2, 3))
        logits = -20 * jnp.abs(level[:, None] - jnp.array([0.0, 0.5, 1.0]))
        self.sow("intermediates", "pre_logits", logits)
        return logits


def subject(batch_size: int = 16) -> Subject:
    return Subject(
        module=Brightness(),
        variables={},
        mean=(0.0,),
        std=(1.0,),
        image_shape=(4, 4, 1),
        class_names=NAMES,
        batch_size=batch_size,
        put=lambda batch: jax.tree.map(jnp.asarray, dict(batch)),
    )


VIEW = View(size=4, channels=1)


@pytest.fixture
def files(tmp_path):
    paths = []
    for i in range(21):
        path = tmp_path / f"{i:02d}.png"
        Image.fromarray(np.full((6, 6), i * 12, np.uint8)).save(path)
        paths.append(path)
    return paths


def ask(paths, **changed):
    arguments = {"calibration": None, "top_k": 2} | changed
    return list(answers.answers(subject(), VIEW, paths, **arguments))


def test_every_file_is_answered_in_order_in_whatever_batches(files):
    whole = ask(files)
    assert [a.path for a in whole] == [str(p) for p in files]
    assert whole[0].classes == ("dark", "grey") and whole[20].classes[0] == "light"
    assert ask(files[:3]) == whole[:3]
    assert ask(files[20:]) == whole[20:]


def test_a_file_that_cannot_be_read_takes_nothing_from_the_others(files):
    files[4].write_bytes(b"no image")
    files[17].unlink()
    found = ask(files)
    assert "no image format" in found[4].error and found[4].classes == ()
    assert "No such file" in found[17].error
    assert [a for i, a in enumerate(found) if i not in (4, 17)] == [
        a for i, a in enumerate(ask(files)) if i not in (4, 17)
    ]
    assert ask([files[4]])[0].error


def test_probabilities_are_softmax_over_temperature():
    logits = np.array([1.0, 3.0, 2.0], np.float32)
    calibration = Calibration(1, "x", 9, 2.0, -99.0, 0.2)
    found = answers.answer(
        "a",
        logits,
        NAMES,
        calibration=calibration,
        top_k=3,
        reject_below=0.0,
        reject_unknown=False,
    )
    expected = np.exp([1.5, 1.0, 0.5]) / np.exp([1.5, 1.0, 0.5]).sum()
    assert found.classes == ("grey", "light", "dark")
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-12)
    assert found.prediction_set == ("grey", "light")  # 0.51, 0.31, and 0.19 is below 0.2


@pytest.mark.parametrize(
    "changed, known, why",
    [
        ({}, True, ""),
        ({"reject_below": 0.9}, False, "confidence below 0.9"),
        ({"reject_unknown": True}, False, "stranger than 95%"),
    ],
)
def test_it_may_know_none(changed, known, why):
    options = {"reject_below": 0.0, "reject_unknown": False} | changed
    calibration = Calibration(1, "x", 9, 1.0, 5.0, None)  # the energy of these logits is 3.4
    logits = np.array([1.0, 3.0, 2.0], np.float32)
    found = answers.answer("a", logits, NAMES, calibration=calibration, top_k=1, **options)
    assert (found.known, found.why_not[: len(why)]) == (known, why)
    assert found.classes == ("grey",)
    assert found.prediction_set is None


def test_an_output_that_is_no_number_is_no_answer():
    logits = np.array([1.0, np.nan, 2.0], np.float32)
    found = answers.answer(
        "a", logits, NAMES, calibration=None, top_k=1, reject_below=0.0, reject_unknown=False
    )
    assert not found.known and "not a number" in found.why_not


def test_what_is_fitted_keeps_its_promises_on_its_own_examples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 2000)
    logits = rng.normal(0, 1, (2000, 5)).astype(np.float32)
    logits[np.arange(2000), labels] += 2
    found = answers.fit(3 * logits, labels, step=7, input_digest="d")
    # Gaussians of unit variance, 2 apart: the true logits are 2 x, these are 1.5 times those.
    assert found.temperature == pytest.approx(1.5, abs=0.1)
    assert np.mean(ood_scores.energy(3 * logits) >= found.least_energy) == pytest.approx(
        0.95, abs=1e-3
    )
    probabilities = calibration.softmax(3 * logits, found.temperature)
    held = probabilities[np.arange(2000), labels] >= found.set_threshold
    assert 0.95 <= held.mean() < 0.953


def test_too_few_validation_images_promise_no_set():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert answers.fit(logits, np.arange(5) % 3, step=0, input_digest="").set_threshold is None


def test_it_is_kept_and_refused_for_another_step_or_input(tmp_path):
    assert answers.load(tmp_path, step=7, input_digest="d") is None
    calibration = Calibration(7, "d", 9, 1.5, 2.0, 0.1)
    answers.save(calibration, tmp_path)
    assert answers.load(tmp_path, step=7, input_digest="d") == calibration
    with pytest.raises(UserError, match=r"another step.*imgrec\.evaluate"):
        answers.load(tmp_path, step=8, input_digest="d")
    with pytest.raises(UserError, match="otherwise prepared"):
        answers.load(tmp_path, step=7, input_digest="e")
    (tmp_path / answers.NAME).write_text(json.dumps({"step": 7}))
    with pytest.raises(UserError, match="cannot be read"):
        answers.load(tmp_path, step=7, input_digest="d")


def test_images_are_shown_as_the_network_sees_them(files):
    shown = {}
    ask(files[:2], seen=lambda path, image, best: shown.update({path: (image, best)}))
    assert set(shown) == set(files[:2])
    image, best = shown[files[1]]
    assert image.shape == (4, 4, 1) and (image == 12).all() and best == 0


def test_an_image_of_another_shape_is_told_of(files):
    uncropped = dataclasses.replace(VIEW, size=0)
    (found,) = answers.answers(subject(), uncropped, files[:1], calibration=None, top_k=1)
    assert found.error == "it is 6x6, and the model takes 4x4"
