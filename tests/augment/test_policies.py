import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from sklearn.datasets import load_sample_images

from imgrec.augment import draws, geometric, policies
from imgrec.augment.operations import OPERATIONS, apply
from imgrec.config import AugmentConfig
from imgrec.errors import UserError

PHOTOGRAPH = np.asarray(Image.fromarray(load_sample_images().images[0]).resize((64, 48)))
H, W = PHOTOGRAPH.shape[:2]
FILL = 90


def moved(coefficients):
    """Pillow's affine transform about the centre: x and y that are read, by x, y and 1."""

    def expected(image, m):
        a, b, c, d, e, f = coefficients(m)
        y0, x0 = H / 2, W / 2
        about = (a, b, c + x0 - a * x0 - b * y0, d, e, f + y0 - d * x0 - e * y0)
        return image.transform(
            (W, H), Image.Transform.AFFINE, about, Image.Resampling.BILINEAR, fillcolor=(FILL,) * 3
        )

    return expected


def turned(m):
    a = np.deg2rad(m)
    return (np.cos(a), -np.sin(a), 0, np.sin(a), np.cos(a), 0)


PILLOW = {  # magnitude, expected
    "identity": (0.0, lambda p, m: p),
    "shear_x": (0.3, moved(lambda m: (1, -m, 0, 0, 1, 0))),
    "shear_y": (-0.2, moved(lambda m: (1, 0, 0, -m, 1, 0))),
    "translate_x": (7.5, moved(lambda m: (1, 0, -m, 0, 1, 0))),
    "translate_y": (-5.0, moved(lambda m: (1, 0, 0, 0, 1, -m))),
    "rotate": (25.0, moved(turned)),
    "brightness": (1.7, lambda p, m: ImageEnhance.Brightness(p).enhance(m)),
    "contrast": (0.4, lambda p, m: ImageEnhance.Contrast(p).enhance(m)),
    "saturation": (1.6, lambda p, m: ImageEnhance.Color(p).enhance(m)),
    "sharpness": (1.9, lambda p, m: ImageEnhance.Sharpness(p).enhance(m)),
    "posterize": (3.0, lambda p, m: ImageOps.posterize(p, int(m))),
    "solarize": (100.0, lambda p, m: ImageOps.solarize(p, int(m))),
    "solarize_add": (
        60.0, lambda p, m: p.point([min(v + 60, 255) if v < 128 else v for v in range(256)] * 3)
    ),
    "autocontrast": (0.0, lambda p, m: ImageOps.autocontrast(p)),
    "equalize": (0.0, lambda p, m: ImageOps.equalize(p)),
    "invert": (0.0, lambda p, m: ImageOps.invert(p)),
}  # fmt: skip
MOVING = OPERATIONS[1:6]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name):
    """Exactly, but autocontrast and what moves pixels within 1, the latter in the interior."""
    magnitude, expected_of = PILLOW[name]
    image = np.asarray(Image.fromarray(PHOTOGRAPH // 2 + 30))
    found = jax.jit(apply, static_argnums=3)(image, OPERATIONS.index(name), magnitude, FILL)
    expected = np.asarray(expected_of(Image.fromarray(image), magnitude))
    difference = np.abs(np.asarray(found).astype(int) - expected)
    if name in MOVING:  # at the border Pillow stretches the outermost pixels, here they fade
        outside = (expected == FILL).all(axis=-1)
        border = np.asarray(Image.fromarray(outside).convert("L").resize((W, H))) > 0
        grown = np.zeros_like(border)
        for dy in (-2, -1, 0, 1, 2):
            for dx in (-2, -1, 0, 1, 2):
                grown |= np.roll(border, (dy, dx), (0, 1))
        grown[:2] = grown[-2:] = True
        grown[:, :2] = grown[:, -2:] = True
        assert (~grown).mean() > 0.3
        assert (np.asarray(found)[1:-1, 1:-1][outside[1:-1, 1:-1]] == FILL).mean() > 0.8
        difference = difference[~grown]
    assert difference.max() <= (1 if name in (*MOVING, "autocontrast") else 0)


@pytest.mark.parametrize("name", policies.POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_policy_keeps_shape_and_dtype(name, channels):
    policy = policies.create(AugmentConfig(policy=name))
    image = jnp.asarray(PHOTOGRAPH[..., :channels])
    keys = jax.random.split(jax.random.key(0), 12)
    found = np.asarray(jax.jit(jax.vmap(lambda key: policy(image, key, 0)))(keys))
    assert found.dtype == np.uint8
    assert found.shape == (12, *image.shape)
    assert len({one.tobytes() for one in found}) > 5


def test_randaugment_of_strength_zero_only_stretches_levels():
    options = ConfigDict({"n": 1, "m": 0.0})
    policy = policies.create(AugmentConfig(policy="randaugment", options=options))
    image = jnp.asarray(PHOTOGRAPH)
    keys = jax.random.split(jax.random.key(0), 60)
    found = np.asarray(jax.jit(jax.vmap(lambda key: policy(image, key, 0)))(keys))
    unchanged = (found == PHOTOGRAPH).all(axis=(1, 2, 3))
    assert 0.6 < unchanged.mean() < 1  # 12 of 14, but for equalize and autocontrast


@pytest.mark.parametrize("table", [policies.CIFAR10, policies.IMAGENET])
def test_tables_have_25_pairs(table):
    lines = table.strip().splitlines()
    assert len(lines) == 25
    for line in lines:
        for step in line.split(","):
            name, probability, level = step.split()
            assert name in OPERATIONS
            assert 0 <= float(probability) <= 1
            assert 0 <= int(level) <= 9


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"policy": "randaugmet"}, "randaugmet.*Did you mean 'randaugment'"),
        ({"policy": "randaugment", "options": {"k": 1}}, "Unknown option.*'k'.*Known: m, n"),
        ({"policy": "randaugment", "options": {"n": 0}}, "options.n=0 .*between 1 and 16"),
        ({"policy": "randaugment", "options": {"m": 11}}, "options.m=11.0 .*between 0 and 10"),
        ({"policy": "randaugment", "options": {"n": "2"}}, "has the type str; expected int"),
        ({"policy": "randaugment", "options": {"operations": "extnded"}}, "'extended'"),
        ({"policy": "augmix", "options": {"severity": 0.0}}, "severity=0.0"),
        ({"policy": "trivialaugment", "options": {"m": 1}}, "takes no options"),
        ({"options": {"m": 1}}, "options.m is an option of no policy"),
    ],
)
def test_impossible_policies_are_refused(config, message):
    config = {**config, "options": ConfigDict(config.get("options", {}))}
    with pytest.raises(UserError, match=message):
        policies.create(AugmentConfig(**config))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_gamma_and_dirichlet_have_their_distributions(alpha):
    keys = jax.random.split(jax.random.key(0), 2000)
    found = np.asarray(jax.vmap(lambda key: draws.gamma(key, alpha))(keys))
    assert stats.kstest(found, stats.gamma(alpha).cdf).pvalue > 1e-3
    shares = np.asarray(jax.vmap(lambda key: draws.dirichlet(key, alpha, 3))(keys))
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert stats.kstest(shares[:, 1], stats.beta(alpha, 2 * alpha).cdf).pvalue > 1e-3


def test_a_perspective_is_pillows_in_the_interior():
    corners = np.array([[-20, 30], [10, 280], [230, 226], [270, -25]])
    points = geometric.perspective(corners, H, W)
    found = np.asarray(geometric.warp(jnp.asarray(PHOTOGRAPH), shifted(points), FILL))
    places = corners / 256 * [H, W]
    rows, wanted = [], []
    for (v, u), (y, x) in zip([(0, 0), (0, W), (H, W), (H, 0)], places, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        wanted += [x, y]
    coefficients = np.linalg.solve(np.array(rows, float), np.array(wanted))
    expected = Image.fromarray(PHOTOGRAPH).transform(
        (W, H), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )
    inner = np.s_[8:-8, 8:-8]
    assert np.abs(found[inner] - np.asarray(expected)[inner]).max() <= 1.5


def shifted(points):
    return points[0] + (H - 1) / 2, points[1] + (W - 1) / 2


@pytest.mark.parametrize("box", [(0, 0, 48, 64), (5, 9, 20, 33), (40, 60, 8, 4), (3, 3, 1, 1)])
def test_a_resized_box_is_pillows_crop_and_resize(box):
    top, left, height, width = box
    crop = Image.fromarray(PHOTOGRAPH).crop((left, top, left + width, top + height))
    expected = np.asarray(crop.resize((W, H), Image.Resampling.BILINEAR)).astype(int)
    found = geometric.resized_box(jnp.asarray(PHOTOGRAPH), *map(jnp.asarray, box))
    assert np.abs(np.asarray(found) - expected).max() <= 1


def test_crop_boxes_fit_and_fill_their_ranges():
    def one(key):
        return jnp.stack(geometric.crop_box(key, 40, 60, (0.1, 0.5), (0.5, 2.0)))

    boxes = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 500)))
    top, left, height, width = boxes.T
    assert ((top >= 0) & (left >= 0) & (top + height <= 40) & (left + width <= 60)).all()
    shares, aspects = height * width / 2400, width / height
    assert 0.08 < shares.min() < 0.13 and 0.47 < shares.max() < 0.53
    assert 0.45 < aspects.min() < 0.6 and 1.7 < aspects.max() < 2.2
