"""ImageNet's label map: which class each validation image has, and what the classes are called.

The names of the 1000 classes ship with the project, in the order of every model's logits: by
WordNet id. The labels of the validation images do not. People hold them in several files: the
devkit's (whose class numbers, ILSVRC2012_ID, are NOT that order), Kaggle's, plain lists of WordNet
ids, and the list inside TensorFlow Datasets, which is read without importing that.
"""

import csv
import importlib.util
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imgrec.errors import UserError

_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_LISTS = (
    "imagenet_2012_validation_synset_labels.txt",
    "validation_labels.txt",
    "val_synset_labels.txt",
)
_KAGGLE_SOLUTION = "LOC_val_solution.csv"
_WORDS = ("LOC_synset_mapping.txt", "synset_words.txt")
_SHIPPED = Path(__file__).with_name("imagenet_synsets.txt")  # WordNet's words, as in _WORDS


def validation_wnids(stems: Sequence[str], folders: Sequence[Path], place: str) -> list[str]:
    """The WordNet id of each validation image.

    Args:
      stems: their file names without extension, "ILSVRC2012_val_00000001".
      folders: where label files are looked for, before the one of TensorFlow Datasets.
      place: of the images, for errors.

    Raises:
      UserError: no label file is there, or one does not reach an image.
    """
    path = _first(folders, (_KAGGLE_SOLUTION,))
    if path is not None:
        with path.open(newline="") as file:
            solution = {row[0]: row[1].split()[0] for row in csv.reader(file) if len(row) > 1}
        absent = next((stem for stem in stems if stem not in solution), None)
        if absent is not None:
            raise UserError(f"{path} has no line for {absent} of {place}.")
        return [solution[stem] for stem in stems]

    listed, origin = _devkit_list(folders)
    if listed is None:
        listed, origin = _plain_list(folders)
    if listed is None:
        raise UserError(
            f"The labels of {place} are not known: its images lie in no class folders, and none "
            f"of {', '.join(map(str, folders))} holds {_DEVKIT}, {_GROUND_TRUTH} with {_META}, "
            f"{_KAGGLE_SOLUTION} or {_LISTS[0]}. Put one of them there (the first comes with the "
            "images), or pip install tensorflow-datasets, which ships the last."
        )
    wnids = []
    for stem in stems:
        match = re.search(r"_val_(\d+)$", stem)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(listed):
            raise UserError(
                f"{stem} of {place} has no label in {origin}, which has lines 1 to "
                f"{len(listed):,}; expected names as ILSVRC2012_val_00000001.JPEG."
            )
        wnids.append(listed[number - 1])
    return wnids


def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes of ILSVRC2012, in the order of a model's logits."""
    return tuple(_shipped())


def class_names(
    wnids: Sequence[str] | None = None, folders: Sequence[Path] = ()
) -> tuple[str, ...]:
    """The first of each class's names, "tench", with its WordNet id where two classes share it.

    Args:
      wnids: of the classes; None for the 1000 of ILSVRC2012, in the order of a model's logits.
      folders: where a file of names may lie, before the one that ships with the project. A
        class that no file knows is named by its id.
    """
    known = _words(folders)
    if wnids is None:
        wnids = list(_shipped())
    first = [known.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    return tuple(
        f"{name} ({wnid})" if first.count(name) > 1 else name
        for name, wnid in zip(first, wnids, strict=True)
    )


def _words(folders: Sequence[Path]) -> Mapping[str, str]:
    """The names of each class by WordNet id, "tench, Tinca tinca"."""
    path = _first(folders, _WORDS)
    if path is not None:
        return _listed_words(path)
    meta = _devkit_file(folders, _META)
    return _shipped() if meta is None else dict(_meta(meta).values())


def _shipped() -> Mapping[str, str]:
    return _listed_words(_SHIPPED)


def _listed_words(path: Path) -> Mapping[str, str]:
    lines = path.read_text().splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if " " in line.strip()}


def _devkit_list(folders: Sequence[Path]) -> tuple[list[str] | None, str]:
    truth, meta = _devkit_file(folders, _GROUND_TRUTH), _devkit_file(folders, _META)
    if truth is None or meta is None:
        return None, ""
    by_number = _meta(meta)
    try:
        return [by_number[int(line)][0] for line in truth.split()], f"the devkit's {_GROUND_TRUTH}"
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{_GROUND_TRUTH} and {_META} of the devkit do not belong together: class {error} of "
            "the first is not in the second. Fetch the devkit again."
        ) from None


def _plain_list(folders: Sequence[Path]) -> tuple[list[str] | None, str]:
    path = _first(folders, _LISTS) or _tfds_list()
    if path is None:
        return None, ""
    listed = path.read_text().split()
    strange = next((line for line in listed if not re.fullmatch(r"n\d{8}", line)), None)
    if strange is not None:
        raise UserError(f"{path} holds {strange!r}; expected a WordNet id a line, as n01440764.")
    return listed, str(path)


def _tfds_list() -> Path | None:
    """The list that TensorFlow Datasets ships, found without importing it."""
    try:
        spec = importlib.util.find_spec("tensorflow_datasets")
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or ():
        path = Path(place) / "datasets" / "imagenet2012" / "validation_labels.txt"
        if path.is_file():
            return path
    return None


def _devkit_file(folders: Sequence[Path], name: str) -> bytes | None:
    path = _first([inside for folder in folders for inside in (folder, folder / "data")], (name,))
    if path is not None:
        return path.read_bytes()
    devkit = _first(folders, (_DEVKIT,))
    if devkit is None:
        return None
    try:
        with tarfile.open(devkit) as archive:
            for member in archive:
                if member.name.endswith(f"/{name}"):
                    stream = archive.extractfile(member)
                    return stream.read() if stream is not None else None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{devkit} is damaged ({error}). Fetch it again.") from None
    return None


def _meta(content: bytes) -> dict[int, tuple[str, str]]:
    """ILSVRC2012_ID -> (WordNet id, names), of the devkit's meta.mat."""
    # Here, because it takes a while, and few have to wait for it.
    from scipy.io import loadmat

    try:
        table = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])
        return {
            int(number): (str(wnid), str(names))
            for number, wnid, names in zip(
                table["ILSVRC2012_ID"], table["WNID"], table["words"], strict=True
            )
        }
    except Exception as error:  # scipy raises many kinds on damaged files
        raise UserError(
            f"{_META} of the devkit cannot be read ({error}). Fetch the devkit again."
        ) from None


def _first(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first of these files that is there."""
    return next(
        (folder / name for folder in folders for name in names if (folder / name).is_file()), None
    )
