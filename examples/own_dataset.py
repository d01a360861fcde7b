"""A data set of one's own: sine gratings, to be told apart by their direction.

    python -m imgrec.main --config=configs/digits_lenet.py --config.name=gratings \
        --config.imports="('examples.own_dataset',)" --config.data.dataset=gratings

A format is one function that returns an `Official`: two sources of images with labels, and what is
known of them. Where the images lie in files, `root` is the folder to look in, and an `Encoded`
source hands the files out undecoded. All else (cutting validation off, sizes, batches, copies on
the device) is the same for every data set.
"""

from pathlib import Path

import numpy as np

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data.dataset import ArraySource, Info, Official, channel_statistics

DIRECTIONS = ("horizontal", "rising", "vertical", "falling")
SIDE = 16


def load(config: DataConfig, root: Path) -> Official:
    """800 images to train on and 200 to test, 16x16 and grey; noise by `data.options.noise`."""
    del root  # nothing is read
    noise = float(config.options.get("noise", 0.3))
    train, test = gratings(800, noise, seed=0), gratings(200, noise, seed=1)
    mean, std = channel_statistics(train, sample=len(train))
    info = Info(
        name="gratings",
        num_classes=len(DIRECTIONS),
        class_names=DIRECTIONS,
        image_shape=(SIDE, SIDE, 1),
        mean=mean,
        std=std,
        source=f"computed, with noise {noise:g}; test is drawn with another seed than train",
    )
    return Official(train, test, info)


def gratings(count: int, noise: float, seed: int) -> ArraySource:
    """So many images of random phase and wavelength, the four directions in equal numbers."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(DIRECTIONS)
    angles = np.pi * labels / len(DIRECTIONS)
    y, x = np.mgrid[:SIDE, :SIDE]
    along = np.cos(angles)[:, None, None] * y + np.sin(angles)[:, None, None] * x
    waves = rng.uniform(3, 8, (count, 1, 1))
    phases = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    bright = np.sin(2 * np.pi * along / waves + phases) + noise * rng.normal(size=along.shape)
    pixels = np.clip(127.5 + 80 * bright, 0, 255).astype(np.uint8)
    return ArraySource(pixels[..., None], labels)


data.register("gratings", load)
