"""The constants of the published benchmarks: what a severity means at a resolution.

CIFAR-10-C was made at 32 pixels, Tiny-ImageNet-C at 64 and ImageNet-C at 224 (Hendrycks and
Dietterich 2019, arXiv:1903.12261). The constants are those of the programs that made them,
`make_cifar_c.py`, `make_tinyimagenet_c.py` and `make_imagenet_c.py` of
github.com/hendrycks/robustness; lengths are in pixels, so at another resolution they mean
another strength.
"""

from collections.abc import Mapping
from functools import partial

from imgrec.corruptions import blur, colour, digital, noise, weather
from imgrec.corruptions.jpeg import jpeg_compression
from imgrec.corruptions.severity import Corruption
from imgrec.corruptions.spatter import spatter

CATEGORIES: Mapping[str, str] = {
    "gaussian_noise": "noise",
    "shot_noise": "noise",
    "impulse_noise": "noise",
    "defocus_blur": "blur",
    "glass_blur": "blur",
    "motion_blur": "blur",
    "zoom_blur": "blur",
    "snow": "weather",
    "frost": "weather",
    "fog": "weather",
    "brightness": "weather",
    "contrast": "digital",
    "elastic_transform": "digital",
    "pixelate": "digital",
    "jpeg_compression": "digital",
    "speckle_noise": "noise",
    "gaussian_blur": "blur",
    "spatter": "weather",
    "saturate": "digital",
}
PUBLISHED = tuple(CATEGORIES)[:15]  # the test corruptions, over which results are averaged
EXTRA = tuple(CATEGORIES)[15:]  # the validation corruptions, on which alone a choice may be based

CIFAR_C: Mapping[str, Corruption] = {
    "gaussian_noise": partial(noise.gaussian_noise, scale=(0.04, 0.06, 0.08, 0.09, 0.1)),
    "shot_noise": partial(noise.shot_noise, photons=(500, 250, 100, 75, 50)),
    "impulse_noise": partial(noise.impulse_noise, amount=(0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": partial(
        blur.defocus_blur, radius=(0.3, 0.4, 0.5, 1, 1.5), sigma=(0.4, 0.5, 0.6, 0.2, 0.1)
    ),
    "glass_blur": partial(
        blur.glass_blur,
        sigma=(0.05, 0.25, 0.4, 0.25, 0.4),
        reach=(1, 1, 1, 1, 1),
        rounds=(1, 1, 1, 2, 2),
    ),
    "motion_blur": partial(blur.motion_blur, radius=(6, 6, 6, 8, 9), sigma=(1, 1.5, 2, 2, 2.5)),
    "zoom_blur": partial(
        blur.zoom_blur, stop=(1.06, 1.11, 1.16, 1.21, 1.26), step=(0.01, 0.01, 0.01, 0.01, 0.01)
    ),
    "snow": partial(
        weather.snow,
        mean=(0.1, 0.1, 0.15, 0.25, 0.3),
        scale=(0.2, 0.2, 0.3, 0.3, 0.3),
        zoom=(1, 1, 1.75, 2.25, 1.25),
        threshold=(0.6, 0.5, 0.55, 0.6, 0.65),
        radius=(8, 10, 10, 12, 14),
        sigma=(3, 4, 4, 6, 12),
        keep=(0.95, 0.9, 0.9, 0.85, 0.8),
    ),
    "frost": partial(
        weather.frost, through=(1, 1, 0.9, 0.85, 0.75), cover=(0.2, 0.3, 0.4, 0.4, 0.45), grain=5
    ),
    "fog": partial(weather.fog, density=(0.2, 0.5, 0.75, 1, 1.5), decay=(3, 3, 2.5, 2, 1.75)),
    "brightness": partial(colour.brightness, shift=(0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": partial(colour.contrast, factor=(0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": partial(
        digital.elastic_transform,
        strength=(0, 0.05, 0.08, 0.1, 0.1),
        sigma=(0, 0.2, 0.06, 0.04, 0.03),
        affine=(0.08, 0.07, 0.06, 0.05, 0.03),
    ),
    "pixelate": partial(digital.pixelate, share=(0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": partial(jpeg_compression, quality=(80, 65, 58, 50, 40)),
    "speckle_noise": partial(noise.speckle_noise, scale=(0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": partial(blur.gaussian_blur, sigma=(0.4, 0.6, 0.7, 0.8, 1)),
    "spatter": partial(
        spatter,
        mean=(0.62, 0.65, 0.65, 0.65, 0.65),
        scale=(0.1, 0.1, 0.3, 0.1, 0.1),
        sigma=(0.7, 0.8, 1, 0.7, 0.5),
        threshold=(0.7, 0.7, 0.69, 0.69, 0.68),
        strength=(0.5, 0.5, 0.5, 0.6, 0.6),
        mud=(0, 0, 0, 1, 1),
    ),
    "saturate": partial(colour.saturate, factor=(0.3, 0.1, 1.5, 2, 2.5), shift=(0, 0, 0, 0.1, 0.2)),
}

TINY_IMAGENET_C: Mapping[str, Corruption] = {
    "gaussian_noise": partial(noise.gaussian_noise, scale=(0.04, 0.08, 0.12, 0.15, 0.18)),
    "shot_noise": partial(noise.shot_noise, photons=(250, 100, 50, 30, 15)),
    "impulse_noise": partial(noise.impulse_noise, amount=(0.01, 0.02, 0.05, 0.08, 0.14)),
    "defocus_blur": partial(
        blur.defocus_blur, radius=(0.5, 1, 1.5, 2.5, 3), sigma=(0.6, 0.1, 0.1, 0.01, 0.1)
    ),
    "glass_blur": partial(
        blur.glass_blur,
        sigma=(0.1, 0.5, 0.6, 0.7, 0.9),
        reach=(1, 1, 1, 2, 2),
        rounds=(1, 1, 2, 1, 2),
    ),
    "motion_blur": partial(
        blur.motion_blur, radius=(10, 10, 10, 10, 12), sigma=(1, 1.5, 2, 2.5, 3)
    ),
    "zoom_blur": partial(
        blur.zoom_blur, stop=(1.06, 1.11, 1.16, 1.21, 1.26), step=(0.01, 0.01, 0.01, 0.01, 0.01)
    ),
    "snow": partial(
        weather.snow,
        mean=(0.1, 0.1, 0.15, 0.25, 0.3),
        scale=(0.2, 0.2, 0.3, 0.3, 0.3),
        zoom=(1, 1, 1.75, 2.25, 1.25),
        threshold=(0.6, 0.5, 0.55, 0.6, 0.65),
        radius=(8, 10, 10, 12, 14),
        sigma=(3, 4, 4, 6, 12),
        keep=(0.8, 0.8, 0.7, 0.65, 0.6),
    ),
    "frost": partial(
        weather.frost,
        through=(1, 0.9, 0.8, 0.75, 0.7),
        cover=(0.3, 0.4, 0.45, 0.5, 0.55),
        grain=10 / 3,
    ),
    "fog": partial(weather.fog, density=(0.4, 0.7, 1, 1.5, 2), decay=(3, 3, 2.5, 2, 1.75)),
    "brightness": partial(colour.brightness, shift=(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": partial(colour.contrast, factor=(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": partial(
        digital.elastic_transform,
        strength=(0, 0.05, 0.1, 0.1, 0.16),
        sigma=(0, 0.3, 0.08, 0.03, 0.03),
        affine=(0.08, 0.06, 0.06, 0.03, 0.02),
    ),
    "pixelate": partial(digital.pixelate, share=(0.9, 0.8, 0.7, 0.6, 0.5)),
    "jpeg_compression": partial(jpeg_compression, quality=(65, 58, 50, 40, 25)),
    "speckle_noise": partial(noise.speckle_noise, scale=(0.15, 0.2, 0.25, 0.3, 0.35)),
    "gaussian_blur": partial(blur.gaussian_blur, sigma=(0.5, 0.75, 1, 1.25, 1.5)),
    "spatter": partial(
        spatter,
        mean=(0.62, 0.65, 0.65, 0.65, 0.65),
        scale=(0.1, 0.1, 0.3, 0.1, 0.1),
        sigma=(0.7, 0.8, 1, 0.7, 0.5),
        threshold=(0.7, 0.7, 0.69, 0.68, 0.67),
        strength=(0.6, 0.6, 0.6, 0.6, 0.6),
        mud=(0, 0, 0, 1, 1),
    ),
    "saturate": partial(colour.saturate, factor=(0.3, 0.1, 2, 5, 30), shift=(0, 0, 0, 0.1, 0.2)),
}

_SIDE = 244 / 224  # the published elastic constants are multiples of 244, at 224 pixels

IMAGENET_C: Mapping[str, Corruption] = {
    "gaussian_noise": partial(noise.gaussian_noise, scale=(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": partial(noise.shot_noise, photons=(60, 25, 12, 5, 3)),
    "impulse_noise": partial(noise.impulse_noise, amount=(0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": partial(
        blur.defocus_blur, radius=(3, 4, 6, 8, 10), sigma=(0.1, 0.5, 0.5, 0.5, 0.5)
    ),
    "glass_blur": partial(
        blur.glass_blur,
        sigma=(0.7, 0.9, 1, 1.1, 1.5),
        reach=(1, 2, 2, 3, 4),
        rounds=(2, 1, 3, 2, 2),
    ),
    "motion_blur": partial(blur.motion_blur, radius=(10, 15, 15, 15, 20), sigma=(3, 5, 8, 12, 15)),
    "zoom_blur": partial(
        blur.zoom_blur, stop=(1.11, 1.16, 1.21, 1.26, 1.31), step=(0.01, 0.01, 0.02, 0.02, 0.03)
    ),
    "snow": partial(
        weather.snow,
        mean=(0.1, 0.2, 0.55, 0.55, 0.55),
        scale=(0.3, 0.3, 0.3, 0.3, 0.3),
        zoom=(3, 2, 4, 4.5, 2.5),
        threshold=(0.5, 0.5, 0.9, 0.85, 0.85),
        radius=(10, 12, 12, 12, 12),
        sigma=(4, 4, 8, 8, 12),
        keep=(0.8, 0.7, 0.7, 0.65, 0.55),
    ),
    "frost": partial(
        weather.frost,
        through=(1, 0.8, 0.7, 0.65, 0.6),
        cover=(0.4, 0.6, 0.7, 0.7, 0.75),
        grain=1,
    ),
    "fog": partial(weather.fog, density=(1.5, 2, 2.5, 2.5, 3), decay=(2, 2, 1.7, 1.5, 1.4)),
    "brightness": partial(colour.brightness, shift=(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": partial(colour.contrast, factor=(0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": partial(
        digital.elastic_transform,
        strength=(2 * _SIDE, 2 * _SIDE, 0.05 * _SIDE, 0.07 * _SIDE, 0.12 * _SIDE),
        sigma=(0.7 * _SIDE, 0.08 * _SIDE, 0.01 * _SIDE, 0.01 * _SIDE, 0.01 * _SIDE),
        affine=(0.1 * _SIDE, 0.2 * _SIDE, 0.02 * _SIDE, 0.02 * _SIDE, 0.02 * _SIDE),
    ),
    "pixelate": partial(digital.pixelate, share=(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": partial(jpeg_compression, quality=(25, 18, 15, 10, 7)),
    "speckle_noise": partial(noise.speckle_noise, scale=(0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": partial(blur.gaussian_blur, sigma=(1, 2, 3, 4, 6)),
    "spatter": partial(
        spatter,
        mean=(0.65, 0.65, 0.65, 0.65, 0.67),
        scale=(0.3, 0.3, 0.3, 0.3, 0.4),
        sigma=(4, 3, 2, 1, 1),
        threshold=(0.69, 0.68, 0.68, 0.65, 0.65),
        strength=(0.6, 0.6, 0.5, 1.5, 1.5),
        mud=(0, 0, 0, 1, 1),
    ),
    "saturate": partial(colour.saturate, factor=(0.3, 0.1, 2, 5, 20), shift=(0, 0, 0, 0.1, 0.2)),
}
