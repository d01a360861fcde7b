"""Fingerprints (imgrec.data.fingerprints) and what is a copy by them (imgrec.data.duplicates)."""

import io

import numpy as np
import pytest
from PIL import Image

from imgrec.data import duplicates, fingerprints
from imgrec.data.dataset import ArraySource

SIDE = 64


class Files:
    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def encoded(self, row):
        return self.files[row]

    def labels(self):
        return np.zeros(len(self.files), np.int32)

    def columns(self):
        return {}

    def where(self, row):
        return f"file {row}"


def photographs(n, seed):
    """Images with the spectrum of photographs: amplitude falls as one over frequency."""
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequencies[0, 0] = 1
    for _ in range(n):
        planes = [
            np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) / frequencies**1.2)
            for _ in range(4)
        ]
        # Mostly grey, as the world is; a third of contrast lost at most.
        colours = np.stack([planes[0] + 0.3 * plane for plane in planes[1:]], axis=-1)
        colours = (colours - colours.mean()) / colours.std() * rng.uniform(25, 60) + 128
        yield Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def jpeg(image, quality=95):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def taken(files):
    return fingerprints.take(Files(files), 3, workers=2)


def joined(*prints):
    return [
        np.concatenate([getattr(p, name) for p in prints])
        for name in ("along_rows", "along_columns", "thumbnails")
    ]


@pytest.fixture(scope="module")
def originals():
    images = list(photographs(2500, seed=0))
    return images, taken([jpeg(image) for image in images])


@pytest.mark.parametrize("quality", [50, 70, 90])
@pytest.mark.parametrize("scale", [1.0, 0.8, 1.15])
def test_planted_copies_are_found(originals, quality, scale):
    images, prints = originals
    chosen = np.arange(0, 2500, 25)
    copies = []
    for row in chosen:
        size = round(SIDE * scale)
        copies.append(jpeg(images[row].resize((size, size), Image.Resampling.BICUBIC), quality))
    found = duplicates.near(*joined(prints, taken(copies)))
    planted = {(int(row), 2500 + i) for i, row in enumerate(chosen)}
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    assert len(planted & pairs) >= 0.95 * len(planted)
    assert pairs <= planted  # of 3.4 million other pairs, none
    assert (found.correlations >= duplicates.LEAST_CORRELATION).all()


def test_brightness_and_contrast_do_not_hide_a_copy(originals):
    images, prints = originals
    darker = [jpeg(image.point(lambda v: int(v * 0.7))) for image in images[:50]]
    found = duplicates.near(*joined(prints, taken(darker)))
    assert {(row, 2500 + row) for row in range(50)} == {tuple(p) for p in found.pairs.tolist()}


def brute_force(prints, least):
    """All pairs one by one, by numpy's own correlation."""
    rows, columns, small = prints
    pairs = []
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            distances = (bin(int(h[a] ^ h[b])).count("1") for h in (rows, columns))
            if max(distances) <= duplicates.MOST_BITS and (
                np.corrcoef(small[a].astype(float), small[b].astype(float))[0, 1] >= least
            ):
                pairs.append([a, b])
    return pairs


@pytest.mark.parametrize("dense", [0.0, 1.0])
@pytest.mark.parametrize("tile", [(256, 4096), (16, 24)])
def test_tiles_and_matrix_products_change_nothing(originals, dense, tile, monkeypatch):
    images, prints = originals
    copies = taken([jpeg(image, 30) for image in images[:20]])
    few = [values[list(range(60)) + list(range(2500, 2520))] for values in joined(prints, copies)]
    monkeypatch.setattr(duplicates, "_DENSE", dense)
    monkeypatch.setattr(duplicates, "_ROWS", tile[0])
    monkeypatch.setattr(duplicates, "_COLUMNS", tile[1])
    for least in (0.985, 0.998):
        expected = brute_force(few, least)
        for workers in (1, 3):
            found = duplicates.near(*few, least=least, workers=workers)
            assert found.pairs.tolist() == expected
    assert len(expected) > 5


def test_exact_groups():
    hashes = np.array([b"b" * 16, b"a" * 16, b"b" * 16, b"c\0" * 8, b"a" * 16, b"a" * 16], "V16")
    groups = duplicates.exact(hashes)
    assert [group.tolist() for group in groups] == [[0, 2], [1, 4, 5]]
    assert duplicates.exact(hashes[:0]) == []
    # Hashes that differ in zero bytes alone at the end are different.
    assert duplicates.exact(np.array([b"x\0" + b"\0" * 14, b"x\0\1" + b"\0" * 13], "V16")) == []


def test_plain_images_are_left_out():
    empty = [jpeg(Image.new("RGB", (20, 20), (i, i, i))) for i in range(5)]
    prints = taken(empty)
    assert duplicates.plain(prints.thumbnails).all()
    assert len(duplicates.near(*joined(prints)).pairs) == 0
    nothing = np.zeros((0, 256), np.uint8)
    none = np.zeros(0, np.uint64)
    assert len(duplicates.near(none, none, nothing).pairs) == 0


def test_hashes_are_signs_of_differences():
    image = np.tile(np.arange(72, dtype=np.uint8) * 3, (72, 1))[..., None]
    prints = fingerprints.take(ArraySource(image[None], np.zeros(1, int)), 1, workers=1)
    # Brighter to the right everywhere, the same from top to bottom.
    assert prints.along_rows.tolist() == [2**64 - 1] and prints.along_columns.tolist() == [0]
    turned = fingerprints.take(
        ArraySource(image[None].transpose(0, 2, 1, 3), np.zeros(1, int)), 1, workers=1
    )
    assert turned.along_rows.tolist() == [0] and turned.along_columns.tolist() == [2**64 - 1]


def test_pixels_count_not_files():
    image = next(photographs(1, seed=3))
    files = []
    for options in ({"compress_level": 1}, {"compress_level": 9}):
        stream = io.BytesIO()
        image.save(stream, "PNG", **options)
        files.append(stream.getvalue())
    prints = taken([*files, files[0]])
    assert len(set(prints.pixels.tolist())) == 1
    assert [group.tolist() for group in duplicates.exact(prints.files)] == [[0, 2]]
    flat = ArraySource(np.zeros((2, 4, 9, 3), np.uint8), np.zeros(2, int))
    tall = ArraySource(np.zeros((2, 9, 4, 3), np.uint8), np.zeros(2, int))
    ours, theirs = (fingerprints.take(each, 3, workers=1) for each in (flat, tall))
    assert ours.pixels[0] == ours.pixels[1] != theirs.pixels[0]
    assert ours.files is None and ours.sizes.tolist() == [[9, 4]] * 2


def test_what_cannot_be_read_is_told_and_the_rest_is_there():
    good = jpeg(next(photographs(1, seed=3)))
    grey = jpeg(next(photographs(1, seed=4)).convert("L"))
    prints = taken([good, b"no image", good[:400], grey])
    assert prints.readable().tolist() == [True, False, False, True]
    assert list(prints.errors) == [1, 2]
    assert prints.errors[1] == "no image file that Pillow knows"
    assert "truncated" in prints.errors[2].lower()
    assert prints.modes.tolist() == ["RGB", "", "", "L"] and prints.formats[0] == "JPEG"


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_pixels_of_any_channels(channels, mode):
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 8, channels), dtype=np.uint8)
    prints = fingerprints.take(ArraySource(images, np.zeros(3, int)), channels, workers=1)
    assert prints.modes.tolist() == [mode] * 3 and len(set(prints.pixels.tolist())) == 3


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(workers):
    files = [jpeg(image) for image in photographs(40, seed=7)]
    one, other = fingerprints.take(Files(files), 3, 1), fingerprints.take(Files(files), 3, workers)
    for name in ("files", "pixels", "along_rows", "along_columns", "thumbnails", "sizes"):
        assert (getattr(one, name) == getattr(other, name)).all()
