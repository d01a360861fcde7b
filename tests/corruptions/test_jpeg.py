import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imgrec.corruptions import filters, jpeg

QUALITIES = [(80, 65, 58, 50, 40), (25, 18, 15, 10, 7)]


def by_pillow(levels, quality):
    stream = io.BytesIO()
    Image.fromarray(levels.squeeze()).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).reshape(levels.shape)


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(32, 32, 3), (28, 28, 1), (28, 28, 3), (37, 50, 3)]
)
def test_the_result_is_pillows_to_the_level(height, width, channels, photographs):
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, channels), np.uint8)
    images = np.concatenate([photographs(height, width, channels), noise])
    for qualities in QUALITIES:
        compress = jax.jit(
            jax.vmap(
                functools.partial(jpeg.jpeg_compression, quality=qualities),
                in_axes=(0, None, None),
            )
        )
        for severity, quality in enumerate(qualities, start=1):
            found = compress(jnp.asarray(images / 255, jnp.float32), jax.random.key(0), severity)
            expected = np.stack([by_pillow(image, quality) for image in images])
            np.testing.assert_array_equal(filters.levels(found), expected)
