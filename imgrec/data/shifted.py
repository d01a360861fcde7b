"""Published test sets whose images are other than those that people train on, as they come.

Corrupted ones: CIFAR-10-C, CIFAR-100-C (Hendrycks and Dietterich 2019) and MNIST-C (Mu and Gilmer
2019), as .npy files. Collected anew: CIFAR-10.1 (Recht et al. 2018), ImageNet-V2 (Recht et al.
2019), ImageNet-A (Hendrycks et al. 2021), ImageNet-R (likewise) and ImageNet-Sketch (Wang et
al. 2019). They have a test split alone, labelled by the classes of the set that they go with.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Integer, Shaped, UInt8

from imgrec.data import cifar, idx, official, synsets
from imgrec.data.dataset import ArraySource, Encoded, Source
from imgrec.data.imagenet import FileImages
from imgrec.errors import UserError, unknown

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur"),
    *("motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast"),
    *("elastic_transform", "pixelate", "jpeg_compression"),
)
FOR_VALIDATION = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
MNIST_CORRUPTIONS = (
    *("shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate"),
    *("brightness", "translate", "stripe", "fog", "spatter", "dotted_line", "zigzag"),
    "canny_edges",
)


class Part(NamedTuple):
    """One of the sources of a set: a corruption at a severity, or ("", 0) where there is one."""

    kind: str
    severity: int


@dataclass(frozen=True, eq=False)
class Shifted:
    """A published shifted set.

    Attributes:
      name: of the set.
      base: the data set whose classes it has.
      profile: of corruptions that its own are of; "" for a set that was collected.
      parts: of a corrupted set, the same images in the same order under every corruption.
      clean: these images as they were, where the set has them too.
      class_names: of the labels.
      wnids: of the labels, where they have any.
      classes: labels that occur, ascending. Where they are a part of all, accuracy is that of a
        choice among them, as the authors evaluate.
      image_shape: height, width, channels; height and width are 0 where images differ in size.
      source: one line on where the images came from.
      notes: sentences on what is not as published.
    """

    name: str
    base: str
    profile: str
    parts: Mapping[Part, Source | Encoded]
    clean: Source | Encoded | None
    class_names: tuple[str, ...]
    wnids: tuple[str, ...]
    classes: Int64[np.ndarray, " classes"]
    image_shape: tuple[int, int, int]
    source: str
    notes: tuple[str, ...] = ()


def load(name: str, root: Path) -> Shifted:
    """Opens a set in `root`, or in a folder there that is named as its publishers name it.

    Nothing is unpacked, and of .npy files only what is looked at is read.

    Raises:
      UserError: no such set, or its files are missing or damaged.
    """
    if name not in _SETS:
        raise unknown("shifted set", name, _SETS)
    return _SETS[name](name, root)


def names() -> tuple[str, ...]:
    """Every name that `load` takes."""
    return tuple(_SETS)


def _cifar_c(variant: cifar.Variant, folder_name: str) -> Callable[[str, Path], Shifted]:
    def load(name: str, root: Path) -> Shifted:
        folder = _folder(name, root, (folder_name,), "labels.npy", f"{folder_name}.tar, unpacked")
        labels = _labels(folder / "labels.npy", len(variant.class_names))
        parts: dict[Part, Source | Encoded] = {}
        for kind in (*CORRUPTIONS, *FOR_VALIDATION):
            path = folder / f"{kind}.npy"
            if path.is_file():
                images = _images(path, len(labels), (32, 32, 3))
                for severity, rows in zip(SEVERITIES, _fifths(path, len(labels)), strict=True):
                    parts[Part(kind, severity)] = ArraySource(images[rows], labels[rows])
        _need(folder, parts, [f"{kind}.npy" for kind in CORRUPTIONS])
        return Shifted(
            name=name,
            base=variant.name,
            profile="cifar_c",
            parts=parts,
            clean=None,
            class_names=variant.class_names,
            wnids=(),
            classes=np.unique(labels).astype(np.int64),
            image_shape=(32, 32, 3),
            source=f"official .npy files in {folder}",
            notes=(
                *_lacking(parts, CORRUPTIONS),
                *_count(len(labels) // len(SEVERITIES), 10_000, "images a severity"),
            ),
        )

    return load


def _mnist_c(name: str, root: Path) -> Shifted:
    folder = _folder(
        name, root, ("mnist_c",), "shot_noise/test_images.npy", "mnist_c.zip, unpacked"
    )

    def read(kind: str) -> ArraySource:
        labels = _labels(folder / kind / "test_labels.npy", 10)
        images = _images(folder / kind / "test_images.npy", len(labels), (28, 28, 1))
        return ArraySource(images, labels)

    there = [k for k in MNIST_CORRUPTIONS if (folder / k / "test_images.npy").is_file()]
    parts: dict[Part, Source | Encoded] = {Part(kind, 1): read(kind) for kind in there}
    _need(folder, parts, [f"{kind}/test_images.npy" for kind in MNIST_CORRUPTIONS])
    first = next(iter(parts.values()))
    return Shifted(
        name=name,
        base="mnist",
        profile="mnist_c",
        parts=parts,
        clean=read("identity") if (folder / "identity" / "test_images.npy").is_file() else None,
        class_names=idx.MNIST.class_names,
        wnids=(),
        classes=np.unique(first.labels()).astype(np.int64),
        image_shape=(28, 28, 1),
        source=f"official .npy files in {folder}",
        notes=(*_lacking(parts, MNIST_CORRUPTIONS), *_count(len(first), 10_000, "images a kind")),
    )


def _cifar10_1(version: str, published: int) -> Callable[[str, Path], Shifted]:
    def load(name: str, root: Path) -> Shifted:
        stem = f"cifar10.1_{version}"
        inside = ("CIFAR-10.1", "CIFAR-10.1/datasets", "cifar10.1")
        folder = _folder(
            name, root, inside, f"{stem}_data.npy", f"{stem}_data.npy and {stem}_labels.npy"
        )
        labels = _labels(folder / f"{stem}_labels.npy", 10)
        images = _images(folder / f"{stem}_data.npy", len(labels), (32, 32, 3))
        return Shifted(
            name=name,
            base="cifar10",
            profile="",
            parts={Part("", 0): ArraySource(images, labels)},
            clean=None,
            class_names=cifar.CIFAR10.class_names,
            wnids=(),
            classes=np.unique(labels).astype(np.int64),
            image_shape=(32, 32, 3),
            source=f"official .npy files in {folder}",
            notes=_count(len(labels), published, "images"),
        )

    return load


class _Photographs(NamedTuple):
    """A set in ImageNet's format: a folder a class.

    Attributes:
      folders: its publishers' names for the folder.
      archive: what it comes as.
      classes: how many classes it has.
      images: how many images.
    """

    folders: tuple[str, ...]
    archive: str
    classes: int
    images: int


def _imagenet(published: _Photographs) -> Callable[[str, Path], Shifted]:
    def load(name: str, root: Path) -> Shifted:
        wnids = synsets.wnids()
        numbers = {wnid: label for label, wnid in enumerate(wnids)}
        # ImageNet-V2 names its folders by the number of the class. Sorted as text, 10 would
        # come before 2, and every label would be wrong.
        numbers |= {str(label): label for label in range(len(wnids))}
        expected = f"{published.archive}, unpacked: a folder a class"
        folder = _folder(name, root, published.folders, "*/*", expected)
        labels_of, files, strange = [], [], []
        for place in sorted(path for path in folder.iterdir() if path.is_dir()):
            if place.name not in numbers:
                strange.append(place.name)
                continue
            inside = sorted(p.name for p in place.iterdir() if p.suffix.lower() in _SUFFIXES)
            files += [f"{place.name}/{file}" for file in inside]
            labels_of += [numbers[place.name]] * len(inside)
        if not files:
            raise _missing(name, root, published.folders, expected)
        labels = np.array(labels_of, np.int32)
        classes = np.unique(labels).astype(np.int64)
        left_out = f"Left out, as no class of ImageNet is named so: {', '.join(strange[:5])}."
        return Shifted(
            name=name,
            base="imagenet",
            profile="",
            parts={Part("", 0): FileImages(folder, files, labels)},
            clean=None,
            class_names=synsets.class_names(),
            wnids=wnids,
            classes=classes,
            image_shape=(0, 0, 3),
            source=f"official files in {folder}",
            notes=(
                *([left_out] if strange else []),
                *_count(len(classes), published.classes, "classes"),
                *_count(len(files), published.images, "images"),
            ),
        )

    return load


_SUFFIXES = (".jpeg", ".jpg", ".png")


def _v2(variant: str) -> Callable[[str, Path], Shifted]:
    folders = tuple(
        f"{prefix}-{variant}{suffix}"
        for prefix in ("imagenetv2", "imagenet")
        for suffix in ("-format-val", "")
    )
    return _imagenet(_Photographs(folders, f"imagenetv2-{variant}.tar.gz", 1_000, 10_000))


_SKETCH = ("imagenet-sketch", "ImageNet-Sketch", "sketch")
_SETS: Mapping[str, Callable[[str, Path], Shifted]] = {
    "cifar10_c": _cifar_c(cifar.CIFAR10, "CIFAR-10-C"),
    "cifar100_c": _cifar_c(cifar.CIFAR100, "CIFAR-100-C"),
    "mnist_c": _mnist_c,
    "cifar10_1": _cifar10_1("v6", 2_000),
    "cifar10_1_v4": _cifar10_1("v4", 2_021),
    "imagenet_v2": _v2("matched-frequency"),
    "imagenet_v2_threshold": _v2("threshold0.7"),
    "imagenet_v2_top_images": _v2("top-images"),
    "imagenet_a": _imagenet(_Photographs(("imagenet-a",), "imagenet-a.tar", 200, 7_500)),
    "imagenet_r": _imagenet(_Photographs(("imagenet-r",), "imagenet-r.tar", 200, 30_000)),
    "imagenet_sketch": _imagenet(_Photographs(_SKETCH, "ImageNet-Sketch.zip", 1_000, 50_889)),
}


def _folder(name: str, root: Path, folders: Sequence[str], holds: str, expected: str) -> Path:
    """The first of these folders, in the root or the root itself, that holds a file or pattern."""
    for folder in (*(root / inside for inside in (*folders, name)), root):
        if folder.is_dir() and next(folder.glob(holds), None) is not None:
            return folder
    raise _missing(name, root, folders, expected)


def _missing(name: str, root: Path, folders: Sequence[str], expected: str) -> UserError:
    return UserError(
        f"The files of {name!r} are not in {root / folders[0]} or {root}. Expected there: "
        f"{expected}. Say where they are with --shifted=NAME@FOLDER, --data.root=FOLDER or the "
        "environment variable IMGREC_DATA."
    )


def _need(folder: Path, parts: Mapping[Part, object], files: Sequence[str]) -> None:
    if not parts:
        raise UserError(
            f"{folder} holds no corrupted images; expected there: {', '.join(files[:3])}, ..."
        )


def _lacking(parts: Mapping[Part, object], kinds: Sequence[str]) -> list[str]:
    """A note, where not all kinds that a mean is over are there."""
    there = {part.kind for part in parts}
    lacking = [kind for kind in kinds if kind not in there]
    return [f"Not there, and missing from every mean: {', '.join(lacking)}."] if lacking else []


def _count(there: int, published: int, what: str) -> tuple[str, ...]:
    if there == published:
        return ()
    return (f"There are {there:,} {what}; the published set has {published:,}.",)


def _fifths(path: Path, n: int) -> list[slice]:
    size, rest = divmod(n, len(SEVERITIES))
    if rest:
        raise official.damaged(
            path, f"its {n:,} images are not {len(SEVERITIES)} equal blocks, one a severity"
        )
    return [slice(size * i, size * (i + 1)) for i in range(len(SEVERITIES))]


def _images(path: Path, n: int, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "n h w c"]:
    images = _array(path)
    if images.dtype != np.uint8 or images.shape != (n, *shape):
        raise official.damaged(
            path,
            f"it holds {images.dtype}{list(images.shape)}, expected uint8{[n, *shape]} by the "
            "number of labels",
        )
    return images


def _labels(path: Path, classes: int) -> Integer[np.ndarray, " n"]:
    labels = _array(path)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not len(labels):
        raise official.damaged(
            path, f"it holds {labels.dtype}{list(labels.shape)}, expected whole numbers on one axis"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise official.damaged(
            path,
            f"it has labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}",
        )
    return labels


def _array(path: Path) -> Shaped[np.ndarray, "..."]:
    """A .npy file, mapped into memory."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise official.damaged(path, f"it is no .npy file ({error})") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
