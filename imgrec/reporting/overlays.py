"""What a network looked at, as pictures: images beside the maps that explain them; its filters.

uint8 RGB arrays in the manner of `plots`, for a page or `plots.save_png`. They know maps and
captions only, not where these come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8
from matplotlib import colormaps
from PIL import Image, ImageDraw

from imgrec.reporting.plots import FAINT, GRID, INK, cut, font, to_uint8

# Sizes in pixels.
_SIDE = 112  # of a picture, about; larger images are reduced to it, smaller ones enlarged
_GAP = 8
_CAPTION_WIDTH = 150
_TEXT = 13
_LINE = 17
_TITLE_LINES = 3
_BAR = (160, 10)
_FILTERS = 64
_FILTER_SIDE = 56


@dataclass(frozen=True)
class Column:
    """Maps of one kind, one for each image of a sheet.

    Attributes:
      title: above the column; words are broken over lines.
      maps: in [0, 1], or in [-1, 1] for signed ones.
      signed: whether values below 0 mean the opposite of those above.
    """

    title: str
    maps: Float[np.ndarray, "images height width"]
    signed: bool = False


def explanation_sheet(
    images: UInt8[np.ndarray, "images height width channels"],
    captions: Sequence[str],
    columns: Sequence[Column],
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """A row for each image: its caption, itself, and one picture for each column of maps.

    Args:
      images: one channel (grey) or three.
      captions: one for each image; a line break begins a new line.
      columns: what explains them.

    Raises:
      ValueError: no images, or captions or maps that are not one for each.
    """
    n, height, width, channels = images.shape
    counts = {len(captions), *(len(column.maps) for column in columns)}
    if n == 0 or counts != {n} or channels not in (1, 3):
        raise ValueError(
            f"No sheet can be made of {n} images with {channels} channels, {len(captions)} "
            f"captions and maps for {[len(column.maps) for column in columns]} images: expected "
            "1 or 3 channels, and a caption and a map of each column for every image."
        )
    size = _size(height, width)
    lines = [["image"], *(_broken(column.title, size[0] + _GAP // 2) for column in columns)]
    top = _GAP + _LINE * max(map(len, lines)) + 4
    said = [caption.split("\n") for caption in captions]
    widest = max(font(_TEXT).getlength(line) for caption in said for line in caption)
    left = 3 * _GAP + min(_CAPTION_WIDTH, int(widest))
    legend = 2 * _LINE + _BAR[1] + 2 * _GAP
    sheet = Image.new(
        "RGB",
        (left + (1 + len(columns)) * (size[0] + _GAP), top + n * (size[1] + _GAP) + legend),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for j, title in enumerate(lines):
        x, y = left + j * (size[0] + _GAP), top - 4 - _LINE * len(title)
        for k, line in enumerate(title):
            draw.text((x, y + k * _LINE), line, font=font(_TEXT), fill=INK)
    for i, (image, caption) in enumerate(zip(images, said, strict=True)):
        y = top + i * (size[1] + _GAP)
        for k, line in enumerate(caption):
            text = cut(line, _CAPTION_WIDTH, _TEXT)
            draw.text((_GAP, y + k * _LINE), text, font=font(_TEXT), fill=FAINT if k else INK)
        sheet.paste(_enlarged(image, size), (left, y))
        for j, column in enumerate(columns, start=1):
            picture = overlay(image, column.maps[i], signed=column.signed)
            sheet.paste(_enlarged(picture, size), (left + j * (size[0] + _GAP), y))
    signs = {column.signed for column in columns}
    _legend(sheet, (left, sheet.height - legend + _GAP), signs)
    return np.array(sheet)


def overlay(
    image: UInt8[np.ndarray, "height width channels"],
    values: Float[np.ndarray, "height width"],
    *,
    signed: bool = False,
) -> UInt8[np.ndarray, "height width 3"]:
    """An image in grey under its map.

    Maps that are not signed are laid over it as a glow, as opaque as they are high. Signed maps
    are red above 0 and blue below, on a pale image, and are brightened so that one pixel in a
    hundred has full colour: those of single pixels have few high peaks.

    Args:
      image: one channel or three.
      values: in [0, 1], or [-1, 1] if signed.
      signed: which of these.
    """
    grey = to_uint8(image).astype(np.float64).mean(axis=-1, keepdims=True) / 255
    if not signed:
        depth = np.clip(values, 0, 1).astype(np.float64)
        colour = _glow(depth)
        opacity = 0.85 * np.sqrt(depth)[..., None]
        return to_uint8(colour * opacity + grey * (1 - opacity))
    strength = np.abs(values.astype(np.float64))
    # Where fewer pixels than that are not 0, the largest gives the scale.
    high = np.quantile(strength, 0.99) or strength.max() or 1.0
    depth = np.clip(values / high, -1, 1).astype(np.float64)
    colour = _red_or_blue(depth)
    opacity = np.sqrt(np.abs(depth))[..., None]
    return to_uint8(colour * opacity + (0.55 + 0.45 * grey) * (1 - opacity))


def filter_sheet(
    kernel: Float32[np.ndarray, "rows columns channels filters"],
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """Filters as small pictures, in rows: grey is 0, and each has its own contrast.

    At most 64, the first. Three channels are shown as colours, of other numbers the mean.
    """
    rows, columns, channels = kernel.shape[:3]
    shown = np.moveaxis(kernel[..., :_FILTERS], -1, 0).astype(np.float64)
    if channels not in (1, 3):
        shown = shown.mean(axis=-1, keepdims=True)
    largest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    pictures = to_uint8(0.5 + 0.5 * shown / np.where(largest > 0, largest, 1))
    factor = max(1, round(_FILTER_SIDE / max(rows, columns)))
    pictures = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    pictures = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    n, height, width, _ = pictures.shape
    across = min(n, 16 if n > 32 else 8)
    down = -(-n // across)
    gap = _GAP // 2
    sheet = np.full((gap + down * (height + gap), gap + across * (width + gap), 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = gap + i // across * (height + gap), gap + i % across * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def _glow(depth: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape 3"]:
    """The colour of a height in [0, 1]: magma less its darkest, which dark images have too."""
    return colormaps["magma"](0.25 + 0.75 * depth)[..., :3]


def _red_or_blue(depth: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape 3"]:
    """The colour of a value in [-1, 1]: white at 0; not as far as the ends, which are both dark."""
    return colormaps["RdBu_r"](0.5 + 0.4 * depth)[..., :3]


def _size(height: int, width: int) -> tuple[int, int]:
    """Width and height of a picture: whole enlargements, or a reduction."""
    longer = max(height, width)
    if longer <= _SIDE:
        factor = max(1, round(_SIDE / longer))
        return width * factor, height * factor
    return max(1, round(width * _SIDE / longer)), max(1, round(height * _SIDE / longer))


def _enlarged(
    image: UInt8[np.ndarray, "height width channels"], size: tuple[int, int]
) -> Image.Image:
    """The picture in that size: each pixel a square, or smoothly reduced."""
    picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    smaller = size[0] < picture.width
    kind = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
    return picture.resize(size, kind)


def _broken(title: str, width: int) -> list[str]:
    """A title over at most three lines, broken between words."""
    letters, lines = font(_TEXT), [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and letters.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    kept = lines[: _TITLE_LINES - 1]
    kept += [" ".join(lines[_TITLE_LINES - 1 :])] if len(lines) >= _TITLE_LINES else []
    return [cut(line, width, _TEXT) for line in kept]


def _legend(sheet: Image.Image, corner: tuple[int, int], signs: set[bool]) -> None:
    """A bar of colours for each kind of map, with the meaning of its ends."""
    draw = ImageDraw.Draw(sheet)
    x, y = corner
    for signed in sorted(signs):
        ends = ("against the class", "for it") if signed else ("nothing", "most")
        ramp = np.linspace(-1 if signed else 0, 1, _BAR[0])
        colours = to_uint8((_red_or_blue if signed else _glow)(ramp))
        bar = np.broadcast_to(colours, (_BAR[1], *colours.shape))
        label = font(_TEXT)
        draw.text((x, y), ends[0], font=label, fill=FAINT)
        start = x + int(label.getlength(ends[0])) + _GAP
        sheet.paste(Image.fromarray(np.ascontiguousarray(bar)), (start, y + 4))
        draw.rectangle((start - 1, y + 3, start + _BAR[0], y + 4 + _BAR[1]), None, GRID)
        after = start + _BAR[0] + _GAP
        draw.text((after, y), ends[1], font=label, fill=FAINT)
        x = after + int(label.getlength(ends[1])) + 4 * _GAP
