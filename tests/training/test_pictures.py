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


def test_captions_name_one_class_or_the_two_that_are_mixed():
    names = ("cat", "dog", "eel")
    assert pictures.caption(np.array([0.0, 1.0, 0.0]), names) == "dog"
    assert pictures.caption(np.array([0.7, 0.0, 0.3]), names) == "cat 0.70 + eel 0.30"
