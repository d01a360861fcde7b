import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgrec.data import decode
from imgrec.data.decode import BrokenImageError, check, pixels
from imgrec.data.view import INTERPOLATIONS, View, crop_box
from imgrec.data.view import decode as decode_view


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def photograph(width=96, height=64):
    """Smooth colours with an edge: what JPEG keeps well."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9)], -1)
    image[height // 3 : height // 2, width // 4 : width // 2] = (240, 20, 60)
    return Image.fromarray(image.astype(np.uint8))


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    if request.param == "Pillow":
        monkeypatch.setattr(decode, "simplejpeg", None)
    elif decode.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")


RED, CLEAR = (200, 30, 60), (200, 30, 60, 0)
SIZE = (5, 3)


def palette(**options):
    image = Image.new("P", SIZE, 1)
    image.putpalette([0, 0, 0, *RED])
    return encoded(image, **options)


KINDS = {
    "L": (lambda: encoded(Image.new("L", SIZE, 77)), (77, 77, 77)),
    "1": (lambda: encoded(Image.new("1", SIZE, 1)), (255, 255, 255)),
    "RGB": (lambda: encoded(Image.new("RGB", SIZE, RED)), RED),
    "P": (palette, RED),
    "P with a clear colour": (lambda: palette(transparency=1), (255, 255, 255)),
    "P half clear": (lambda: palette(transparency=bytes([0, 128])), (227, 142, 157)),
    "RGB with a clear colour": (
        lambda: encoded(Image.new("RGB", SIZE, RED), transparency=RED),
        (255, 255, 255),
    ),
    "RGBA clear": (lambda: encoded(Image.new("RGBA", SIZE, CLEAR)), (255, 255, 255)),
    "RGBA full": (lambda: encoded(Image.new("RGBA", SIZE, (*RED, 255))), RED),
    "LA clear": (lambda: encoded(Image.new("LA", SIZE, (9, 0))), (255, 255, 255)),
    "16-bit PNG": (
        lambda: encoded(Image.fromarray(np.full(SIZE[::-1], 0xC8FF, np.uint16))),
        (0xC8,) * 3,
    ),
    "16-bit TIFF": (
        lambda: encoded(Image.fromarray(np.full(SIZE[::-1], 0x0401, np.uint16)), "TIFF"),
        (4,) * 3,
    ),
    "CMYK TIFF": (lambda: encoded(Image.new("CMYK", SIZE, (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
    "BMP": (lambda: encoded(Image.new("RGB", SIZE, RED), "BMP"), RED),
    "lossless WebP": (lambda: encoded(Image.new("RGB", SIZE, RED), "WEBP", lossless=True), RED),
    "clear WebP": (
        lambda: encoded(Image.new("RGBA", SIZE, CLEAR), "WEBP", lossless=True),
        (255, 255, 255),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_rgb(kind):
    make, colour = KINDS[kind]
    image = pixels(make(), 3)
    assert image.shape == (3, 5, 3) and image.dtype == np.uint8
    assert (image == colour).all(), image[0, 0]
    assert check(make()) == SIZE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 4])
def test_every_kind_becomes_grey_or_rgba(kind, channels):
    make, colour = KINDS[kind]
    image = pixels(make(), channels, size=7)
    assert image.shape == (7, 7, channels)
    if channels == 1:
        grey = Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
        assert (image == grey).all()
    elif "clear" not in kind:
        assert (image == (*colour, 255)).all()
    else:
        assert (image[..., 3] == (128 if "half" in kind else 0)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", SIZE, colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (pixels(data, 3) == RED).all()


def test_cmyk_jpeg_is_inverted_as_adobe_does(decoder):
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert abs(pixels(data, 3).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("bits", ["int32", "float32"])
def test_a_white_that_is_not_known_is_refused(bits):
    data = encoded(Image.fromarray(np.full((4, 4), 1e6, bits)), "TIFF")
    with pytest.raises(BrokenImageError, match="white is not known"):
        pixels(data, 3)
    with pytest.raises(BrokenImageError, match="white is not known"):
        check(data)


JPEGS = {
    "4:2:0": (photograph(), {"quality": 90}),
    "4:4:4": (photograph(), {"quality": 95, "subsampling": 0}),
    "4:2:2": (photograph(), {"quality": 80, "subsampling": 1}),
    "progressive": (photograph(), {"progressive": True}),
    "odd": (photograph(61, 47), {"optimize": True}),
    "grey": (photograph().convert("L"), {"quality": 90}),
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("size", [0, 5, 40])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("exact", [True, False])
def test_both_jpeg_decoders_agree_bit_for_bit(kind, size, channels, exact, monkeypatch):
    pytest.importorskip("simplejpeg")
    image, options = JPEGS[kind]
    data = encoded(image, "JPEG", **options)
    fast = pixels(data, channels, size, exact=exact)
    monkeypatch.setattr(decode, "simplejpeg", None)
    assert (fast == pixels(data, channels, size, exact=exact)).all()


def test_jpeg_at_its_own_size_is_what_pillow_decodes(decoder):
    data = encoded(photograph(), "JPEG", quality=90)
    assert (pixels(data, 3) == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_what_is_cut_out_before_resizing_changes_no_bit(decoder):
    data = encoded(photograph(640, 427), "JPEG", quality=90)
    whole = Image.open(io.BytesIO(data))
    for size in (224, 240, 260, 288):
        for resample in INTERPOLATIONS.values():
            box = crop_box(640, 427, View(size, 3, "center", size / (size + 32)))
            expected = whole.resize((size, size), resample, box=box)
            found = pixels(data, 3, size, lambda w, h, box=box: box, resample)
            np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.fixture
def fast_resize(monkeypatch):
    """Counts the calls of the fast resize."""
    pytest.importorskip("cykooz_resizer")
    calls, resize = [], decode._fast_resize
    monkeypatch.setattr(decode, "_fast_resize", lambda *of: (calls.append(1), resize(*of))[1])
    return calls


def random_parts(count):
    """Images, grey and RGB, with a size for each and a box of it."""
    rng = np.random.default_rng(0)
    for i in range(count):
        width, height = (int(2 ** rng.uniform(0, 8)) for _ in range(2))
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        if i % 2:
            image = np.array(photograph(width, height))
        left, right = (round(width * edge, i % 3) for edge in (rng.uniform(0, 0.4), 0.9))
        upper, lower = (round(height * edge, i % 3) for edge in (rng.uniform(0, 0.4), 1.0))
        box = tuple(float(np.float32(edge)) for edge in (left, upper, right, lower))
        if min(box[2] - box[0], box[3] - box[1]) > 0.1:
            yield image[..., : (1, 3)[i % 4 // 2]], int(rng.choice([1, 3, 32, 100, 224])), box


def test_the_fast_resize_is_within_two_of_pillows_and_unbiased(fast_resize):
    differences = []
    for image, size, box in random_parts(150):
        shown = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        expected = shown.resize((size, size), Image.Resampling.BILINEAR, box=box)
        found = decode._fast_resize(image, size, box)
        assert found.shape == (size, size, image.shape[2])
        differences.append((found.astype(int) - np.asarray(expected).reshape(found.shape)).ravel())
    assert len(fast_resize) > 100
    difference = np.concatenate(differences)
    assert abs(difference).max() <= 2 and (abs(difference) == 2).mean() < 1e-5
    assert abs(difference).mean() < 0.2 and abs(difference.mean()) < 0.01


def test_the_fast_resize_is_the_same_on_every_processor_and_in_threads(monkeypatch):
    library = pytest.importorskip("cykooz_resizer")
    parts = list(random_parts(60))
    first = [decode._fast_resize(*part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda part: decode._fast_resize(*part), parts))

    class Plain(library.Resizer):
        def __init__(self):
            super().__init__()
            self.cpu_extensions = library.CpuExtensions.none

    monkeypatch.setattr(library, "Resizer", Plain)
    plain = [decode._fast_resize(*part) for part in parts]
    for one, two, three in zip(first, again, plain, strict=True):
        assert (one == two).all() and (one == three).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_only_random_bilinear_crops_are_resized_fast(kind, fast_resize, monkeypatch):
    data = encoded(photograph(251, 187), kind)
    random_crop = View(64, 3, "inception")
    fast = decode_view(data, random_crop, 5)
    decode_view(data, View(64, 1, "inception"), 5)
    assert len(fast_resize) == 2

    upright = Image.open(io.BytesIO(data)).convert("RGB")
    for view, word in [
        (random_crop, None),
        (View(64, 3, "inception", interpolation="bicubic"), 5),
        (View(64, 3, "center"), 5),
        (View(64, 3), 5),
    ]:
        box = crop_box(*upright.size, view, word)
        expected = upright.resize((64, 64), INTERPOLATIONS[view.interpolation], box=box)
        assert (decode_view(data, view, word) == np.asarray(expected)).all()
    decode_view(data, View(64, 4, "inception"), 5)
    assert len(fast_resize) == 2

    monkeypatch.setattr(decode, "cykooz_resizer", None)
    without = decode_view(data, random_crop, 5)
    assert len(fast_resize) == 2 and 0 < abs(fast.astype(int) - without).max() <= 2


@pytest.mark.parametrize(
    ("side", "size", "factor"),
    [(200, 50, 2), (199, 50, 1), (800, 50, 8), (799, 50, 4), (9000, 50, 8), (10, 0, 1)],
)
def test_a_reduced_part_keeps_twice_the_pixels(side, size, factor):
    assert decode._reduction((3.0, 3.0, 3.0 + side, 5.0 + 2 * side), size) == factor


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [10, 20])
@pytest.mark.parametrize("exact", [True, False])
def test_reduction_changes_little(decoder, orientation, size, exact):
    # 251 x 187 is no multiple of 8, so a part that is mapped wrongly shows at the border.
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(251, 187), "JPEG", quality=95, exif=exif)
    part = (8.0, 3.0, 183.0, 181.0)
    for resample in INTERPOLATIONS.values():
        got = pixels(data, 3, size, lambda w, h: part, resample, exact=exact)
        whole = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        expected = np.asarray(whole.resize((size, size), resample, box=part))
        assert np.abs(got.astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("crop", ["none", "center", "inception"])
def test_exif_orientation_is_honoured(orientation, kind, crop):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(photograph(31, 22), kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert check(data) == upright.size
    assert (pixels(data, 3) == np.asarray(upright)).all()

    view = View(size=16, channels=3, crop=crop)
    box = crop_box(*upright.size, view, word=5)
    expected = np.asarray(upright.resize((16, 16), Image.Resampling.BILINEAR, box=box))
    got = decode_view(data, view, 5)
    assert abs(got.astype(int) - expected).max() <= 2  # the two passes of a resize swap


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_impossible_orientation_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(31, 22), "JPEG", exif=exif)
    assert pixels(data, 3).shape == (22, 31, 3)


WHOLE = {
    "JPEG": encoded(photograph(), "JPEG"),
    "progressive JPEG": encoded(photograph(), "JPEG", progressive=True),
    "PNG": encoded(photograph()),
    "GIF": encoded(photograph(), "GIF"),
    "BMP": encoded(photograph(), "BMP"),
    "WEBP": encoded(photograph(), "WEBP"),
    "TIFF": encoded(photograph(), "TIFF"),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("kept", [0, 1, 20, 0.3, 0.6, 0.9])
def test_truncated_files_are_broken(decoder, kind, kept):
    data = WHOLE[kind]
    cut = data[: int(kept * len(data)) if isinstance(kept, float) else kept]
    for read in (lambda: pixels(cut, 3), lambda: pixels(cut, 1, 8), lambda: check(cut)):
        with pytest.raises(BrokenImageError, match=None if kept else "the file is empty"):
            read()


@pytest.mark.parametrize("data", [b"GIF89a", b"hello", b"\xff\xd8\xff\xe0", b"\0" * 1000])
def test_what_is_no_image_is_broken(data):
    with pytest.raises(BrokenImageError):
        pixels(data, 3)
    with pytest.raises(BrokenImageError):
        check(data)


def test_a_damaged_png_is_broken():
    data = bytearray(WHOLE["PNG"])
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BrokenImageError):
        check(bytes(data))
