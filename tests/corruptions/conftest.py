from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image


@pytest.fixture(autouse=True)
def quick_compilation() -> Iterator[None]:
    """Programs that run once need no optimizing, which takes most of the time of these tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def photographs() -> Callable[..., np.ndarray]:
    """photographs(height, width, channels): eight parts of two photographs, uint8 [8, H, W, C]."""
    pictures = [Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")]

    def cut(height: int, width: int, channels: int = 3) -> np.ndarray:
        parts = [
            picture.crop((left, 0, left + 427, 427)).resize((width, height))
            for picture in pictures
            for left in (0, 60, 120, 213)
        ]
        mode = "RGB" if channels == 3 else "L"
        return np.stack([np.asarray(part.convert(mode)) for part in parts]).reshape(
            8, height, width, channels
        )

    return cut
