"""Pictures of what the model is fed and of what it confuses."""

import numpy as np

from imgrec.training import pictures
from imgrec.training.plan import plan


def test_the_grid_shows_what_training_sees(tiny):
    tiny.augment.mixup = 1.0
    planned = plan(tiny)
    picture = pictures.augmented_grid(planned, next(planned.feed()))
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert picture.std() > 20


def test_the_grid_begins_with_the_originals(tiny):
    """Eight columns of 8x8 digits: a plain grid has the same first row, and no more rows."""
    planned = plan(tiny)
    batch = next(planned.feed())
    plain = pictures.augmented_grid(planned, batch)
    tiny.augment.invert = 1.0
    inverted = pictures.augmented_grid(plan(tiny), batch)
    assert inverted.shape == plain.shape
    quarter = plain.shape[0] // 4
    np.testing.assert_array_equal(inverted[: quarter - 20], plain[: quarter - 20])
    assert np.abs(inverted[quarter:].astype(int) - plain[quarter:]).mean() > 20


def test_captions_name_one_class_or_the_two_that_are_mixed():
    names = ("cat", "dog", "eel")
    assert pictures.caption(np.array([0.0, 1.0, 0.0]), names) == "dog"
    assert pictures.caption(np.array([0.7, 0.0, 0.3]), names) == "cat 0.70 + eel 0.30"
