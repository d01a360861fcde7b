"""The constants of the published benchmarks: what a severity means at a resolution.

CIFAR-10-C was made at 32 pixels, ImageNet-C at 224 (Hendrycks and Dietterich 2019,
arXiv:1903.12261; the generating programs are `make_cifar_c.py` and `make_imagenet_c.py` of
github.com/hendrycks/robustness). ImageNet-C's strengths would destroy an image of 32 pixels.
"""

from collections.abc import Mapping
from functools import partial

from imgrec.corruptions import noise
from imgrec.corruptions.severity import Corruption

PUBLISHED = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
)
EXTRA = ("speckle_noise",)

CATEGORIES = {
    "gaussian_noise": "noise",
    "shot_noise": "noise",
    "impulse_noise": "noise",
    "speckle_noise": "noise",
}

CIFAR_C: Mapping[str, Corruption] = {
    "gaussian_noise": partial(noise.gaussian_noise, scale=(0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": partial(noise.shot_noise, photons=(500, 250, 100, 75, 50)),
    "impulse_noise": partial(noise.impulse_noise, amount=(0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": partial(noise.speckle_noise, scale=(0.06, 0.1, 0.12, 0.16, 0.2)),
}

IMAGENET_C: Mapping[str, Corruption] = {
    "gaussian_noise": partial(noise.gaussian_noise, scale=(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": partial(noise.shot_noise, photons=(60, 25, 12, 5, 3)),
    "impulse_noise": partial(noise.impulse_noise, amount=(0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": partial(noise.speckle_noise, scale=(0.15, 0.2, 0.35, 0.45, 0.6)),
}
