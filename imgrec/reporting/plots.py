"""Pictures as uint8 RGB arrays: a confusion matrix, a sheet of captioned images.

They are laid out in whole pixels by Pillow, with matplotlib's colours and font: a cell or an
enlarged pixel is an exact square, a matrix of 100 classes takes a fraction of a second, and
there is no display or global state. An array goes to a metric writer as it is, and to a
file by `save_png`. Matplotlib is imported by the first picture, as training draws few.
"""

import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Num, UInt8
from PIL import Image, ImageDraw, ImageFont

from imgrec.files import written_aside

INK = "#222831"
FAINT = "#69717c"
GRID = "#e3e6ea"

# Sizes in pixels.
_MATRIX_SIDE = 2700  # at most, unless the classes are more
_CELL = 84  # at most
_TITLE = 30
_LABEL = 24  # of names and counts, at most
_GAP = 10
_THUMBNAIL = 112  # what the longer side of a small image is enlarged to, about
_CAPTION = 13
_CAPTION_LINE = 17

_LONGEST_NAME = 26  # characters of a class name beside a matrix


def confusion_matrix(
    matrix: Integer[np.ndarray, "classes classes"] | Sequence[Sequence[int]],
    class_names: Sequence[str],
) -> UInt8[np.ndarray, "height width 3"]:
    """How often each class (row) was taken for each class (column).

    Blue is right and red is wrong; the depth of a colour is the share of its row, on a
    square root scale, so that a confusion of one in a hundred is already seen. Counts are
    written where they fit, to about 200 classes; of more than 200 every tenth is named.

    Raises:
      ValueError: the matrix has not one row and one column for each name.
    """
    counts = np.asarray(matrix)
    classes = len(class_names)
    if classes == 0 or counts.shape != (classes, classes):
        raise ValueError(f"A matrix of shape {counts.shape} does not fit {classes} class names.")
    cells = _cells(counts, min(_CELL, max(2, _MATRIX_SIDE // classes)))
    rows = _names(class_names, cells.height, upright=False)
    columns = _names(class_names, cells.width, upright=True)

    n = int(counts.sum())
    accuracy = 100 * int(counts.trace()) / max(n, 1)
    title = _text(f"accuracy {accuracy:.2f} %   n = {n:,}", _TITLE, INK)
    true, predicted = (_text(word, _LABEL, FAINT) for word in ("true", "predicted"))
    true = true.rotate(90, expand=True)

    left = 3 * _GAP + true.width + rows.width
    top = 4 * _GAP + title.height
    right, bottom = left + cells.width, top + cells.height
    picture = Image.new(
        "RGB",
        (
            max(right, left + title.width) + 3 * _GAP,
            bottom + 2 * _GAP + columns.height + predicted.height + 2 * _GAP,
        ),
        "white",
    )
    picture.paste(cells, (left, top))
    ImageDraw.Draw(picture).rectangle((left - 2, top - 2, right + 1, bottom + 1), None, FAINT, 2)
    picture.paste(title, (max(left, (left + right - title.width) // 2), 2 * _GAP))
    picture.paste(true, (_GAP, (top + bottom - true.height) // 2))
    picture.paste(rows, (left - _GAP - rows.width, top))
    picture.paste(columns, (left, bottom + _GAP))
    picture.paste(
        predicted, ((left + right - predicted.width) // 2, bottom + 2 * _GAP + columns.height)
    )
    return np.array(picture)


def image_grid(
    images: Num[np.ndarray, "n height width channels"], captions: Sequence[str], columns: int
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """A sheet of images in rows, each above its caption.

    Small images are enlarged by a whole factor, each pixel to a square: what is shown is
    what the model saw.

    Args:
      images: uint8, or floats in [0, 1] (clipped to it); one channel (grey) or three.
      captions: one for each image; a line break begins a new line, and what is too wide is
        cut.
      columns: images in a row.

    Raises:
      ValueError: no images, not one caption for each, or neither 1 nor 3 channels.
    """
    n, height, width, channels = images.shape
    if n == 0 or len(captions) != n or columns < 1 or channels not in (1, 3):
        raise ValueError(
            f"No sheet can be made of {n} images with {channels} channels and {len(captions)} "
            f"captions in {columns} columns: expected 1 or 3 channels and a caption each."
        )
    factor = max(1, round(_THUMBNAIL / max(height, width)))
    pixels = to_uint8(images).repeat(factor, axis=1).repeat(factor, axis=2)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    height, width = height * factor, width * factor

    texts = [caption.split("\n") for caption in captions]
    column_width = width + _GAP
    row_height = height + 4 + _CAPTION_LINE * max(map(len, texts)) + _GAP
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = Image.new("RGB", (_GAP + columns * column_width, _GAP + rows * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, lines in enumerate(texts):
        x, y = _GAP + i % columns * column_width, _GAP + i // columns * row_height
        sheet.paste(Image.fromarray(pixels[i]), (x, y))
        for j, line in enumerate(lines):
            draw.text(
                (x, y + height + 4 + j * _CAPTION_LINE),
                cut(line, width + _GAP // 2),
                font=font(_CAPTION),
                fill=INK if j == 0 else FAINT,
            )
    return np.array(sheet)


def denormalise(
    images: Float[np.ndarray, "*batch height width channels"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[np.ndarray, "*batch height width channels"]:
    """The inverse of `imgrec.augment.normalise`: float32 on the scale [0, 1]."""
    return images * np.asarray(std, np.float32) + np.asarray(mean, np.float32)


def save_png(array: UInt8[np.ndarray, "height width 3"], path: str | os.PathLike[str]) -> None:
    """Writes a picture, which appears under its name only when it is complete."""
    with written_aside(Path(path)) as file:
        Image.fromarray(array).save(file, format="png")


def png(array: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A picture as the content of a PNG file."""
    stream = io.BytesIO()
    # The default takes half as long again, for a file smaller by a tenth.
    Image.fromarray(array).save(stream, format="png", compress_level=1)
    return stream.getvalue()


def _cells(counts: Integer[np.ndarray, "classes classes"], cell: int) -> Image.Image:
    """The coloured squares of a matrix, `cell` pixels a side, with their counts and a grid."""
    from matplotlib import colormaps

    size = min(_LABEL, int(0.9 * cell / (0.64 * len(str(counts.max())))))
    written = size >= 6

    shares = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    faintest = 0.04 if written else 0.4  # a dot that no number points out is to be seen
    depth = faintest + (0.9 - faintest) * shares
    right = np.eye(len(counts), dtype=bool)[..., None]
    colours = np.where(
        right, colormaps["Blues"](depth, bytes=True), colormaps["Reds"](depth, bytes=True)
    )
    colours[counts == 0] = 255  # white, so that even one mistake stands out
    squares = colours[..., :3].repeat(cell, axis=0).repeat(cell, axis=1)

    picture = Image.fromarray(np.ascontiguousarray(squares))
    draw = ImageDraw.Draw(picture)
    if written:
        for edge in range(cell, len(squares), cell):
            draw.line((0, edge, len(squares), edge), GRID)
            draw.line((edge, 0, edge, len(squares)), GRID)
        for row, column in np.argwhere(counts):
            draw.text(
                (cell * (column + 0.5), cell * (row + 0.5)),
                str(counts[row, column]),
                font=font(size),
                fill="white" if depth[row, column] > 0.55 else INK,
                anchor="mm",
            )
    return picture


def _names(class_names: Sequence[str], side: int, *, upright: bool) -> Image.Image:
    """A strip of names along one side of a matrix, each at the middle of its row or column.

    Names of rows end at the matrix; names of columns are turned upright unless they fit.
    """
    cell = side // len(class_names)
    every = 1 if cell >= 13 else 10
    size = min(_LABEL, int(0.8 * cell * every))
    names = {
        i: name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1].rstrip() + "…"
        for i, name in enumerate(class_names)
        if i % every == 0
    }
    longest = max(int(font(size).getlength(name)) for name in names.values()) + 2
    if upright and longest < cell:
        strip = Image.new("RGB", (side, _line(size)), "white")
        draw = ImageDraw.Draw(strip)
        for i, name in names.items():
            draw.text((cell * (i + 0.5), 0), name, font=font(size), fill=INK, anchor="ma")
        return strip
    strip = Image.new("RGB", (longest, side), "white")
    draw = ImageDraw.Draw(strip)
    for i, name in names.items():
        draw.text((longest, cell * (i + 0.5)), name, font=font(size), fill=INK, anchor="rm")
    return strip.rotate(90, expand=True) if upright else strip


def _text(text: str, size: int, colour: str) -> Image.Image:
    """One line of text on white, as large as it needs to be."""
    picture = Image.new("RGB", (int(font(size).getlength(text)) + 2, _line(size)), "white")
    ImageDraw.Draw(picture).text((0, 0), text, font=font(size), fill=colour)
    return picture


def _line(size: int) -> int:
    """The height of a line of text, with what hangs below it."""
    return sum(font(size).getmetrics())


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib ships, so that it is the same on every machine."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def cut(line: str, width: int, size: int = _CAPTION) -> str:
    """The line in a font of that size, or as much of it as fits in the width, and an ellipsis."""
    letters = font(size)
    if letters.getlength(line) <= width:
        return line
    while line and letters.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


def to_uint8(images: Num[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Floats in [0, 1] rounded to the nearest of 256 levels; uint8 as it is."""
    if images.dtype == np.uint8:
        return images
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
