"""Images in, batches out: `load` a data set by name, then stream it with `pipeline`.

A format is one file with one function that returns an `Official`, registered below; what
follows (resizing, the validation cut) is the same for all. Nothing here needs TensorFlow, its
data sets or PyTorch to be installed.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgrec.config import DataConfig
from imgrec.data import (
    cifar,
    digits,
    folder,
    holdout,
    idx,
    imagenet,
    mixture,
    prepared,
    sampling,
    scenes,
    shifted,
    splits,
    studies,
    tfds,
)
from imgrec.data.dataset import (
    ArraySource,
    Dataset,
    Encoded,
    Info,
    Official,
    Source,
    Split,
    Subset,
)
from imgrec.data.sampling import Sampling
from imgrec.data.shifted import Shifted
from imgrec.data.view import DecodedSource, View, ViewedSource, viewed, with_channels
from imgrec.errors import UserError, unknown

__all__ = [
    "ArraySource",
    "Dataset",
    "Info",
    "Official",
    "Shifted",
    "Source",
    "Split",
    "load",
    "load_official",
    "load_shifted",
    "names",
    "register",
    "root_folder",
    "view_of",
]

# name -> function of the configuration and the folder that holds official files.
_NAMED: dict[str, Callable[[DataConfig, Path], Official]] = {
    "cifar10": lambda config, root: cifar.load(cifar.CIFAR10, root),
    "cifar100": lambda config, root: cifar.load(cifar.CIFAR100, root),
    "digits": lambda config, root: digits.load(),
    "fashion_mnist": lambda config, root: idx.load(idx.FASHION_MNIST, root),
    "imagenet": lambda config, root: imagenet.load(root, config.channels),
    "mnist": lambda config, root: idx.load(idx.MNIST, root),
    "scenes": lambda config, root: scenes.load(config),
}
_WITH_OPTIONS = {"scenes"}  # names and prefixes that read `config.options`
# "prefix:ARGUMENT" -> function of the argument, the configuration and the folder.
_PREFIXED: Mapping[str, tuple[str, Callable[[str, DataConfig, Path], Official]]] = {
    "folder": ("PATH", lambda path, config, root: folder.load(path, config)),
    "prepared": (
        "PATH",
        lambda path, config, root: prepared.load(
            Path(path).expanduser(), config.channels, f"prepared:{path}"
        ),
    ),
    "tfds": ("NAME", lambda name, config, root: tfds.load(name, root, config.channels)),
}


def register(name: str, load: Callable[[DataConfig, Path], Official]) -> None:
    """Adds a data set of one's own, for `config.data.dataset`.

    Args:
      name: that is not taken.
      load: of the configuration and the folder for official files; it raises a UserError where
        files are missing or damaged.
    """
    if name in _NAMED or name in _PREFIXED:
        raise ValueError(f"The data set {name!r} is registered twice.")
    _NAMED[name] = load
    _WITH_OPTIONS.add(name)  # whether it reads them is its own business


def load(config: DataConfig) -> Dataset:
    """Loads the data set that the configuration names, and cuts validation from its train split.

    Classes that are held out leave all splits before the cut. What studies do to the training
    split (mixing others in, a cap a class, a long tail, wrong labels) comes after it, so that
    validation is not touched by it.

    Args:
      config: all of it but the batch size and how batches are read.

    Raises:
      UserError: no such data set, its files are missing or damaged, its images differ in size
        and `image_size` is 0, or what is asked of its training split cannot be.
    """
    _check_options(config)
    seen = _seen(config)
    held_out = holdout.labels_of(config.holdout_classes, seen.info)
    train, test, published, info = _without(seen, held_out)
    rows = np.arange(len(train))
    validation: Split | None
    if published is not None:
        validation = _whole("validation", published)
    else:
        rows, validation_rows = splits.cut(train, config.validation, config.split_seed)
        validation = None
        if validation_rows is not None:
            validation = Split("validation", train, validation_rows)
    train, rows, info = _studied(config, train, rows, info)
    train_split, sampling = _sampled(config, Split("train", train, rows), info)
    return Dataset(
        train=train_split,
        validation=validation,
        test=_whole("test", test),
        info=info,
        sampling=sampling,
        held_out=_whole("held_out", holdout.OfClasses(seen.test, held_out)) if held_out else None,
        held_out_train=(
            _whole("held_out_train", holdout.OfClasses(seen.train, held_out)) if held_out else None
        ),
    )


def _whole(name: str, source: Source) -> Split:
    return Split(name, source, np.arange(len(source)))


class _Seen(NamedTuple):
    """A published data set whose images are as the configuration wants them seen."""

    train: Source
    test: Source
    validation: Source | None
    info: Info


def _seen(config: DataConfig) -> _Seen:
    official = load_official(config)
    info = official.info
    if 0 in info.image_shape and not config.image_size:
        raise _sizes_differ(config.dataset)
    height, width, channels = info.image_shape
    if config.channels not in (0, channels):
        official = with_channels(official, config.channels)
        info, channels = official.info, config.channels
    shape = (config.image_size or height, config.image_size or width, channels)
    view = view_of(config, channels)
    return _Seen(
        viewed(official.train, view),
        viewed(official.test, view),
        None if official.validation is None else viewed(official.validation, view),
        dataclasses.replace(info, image_shape=shape),
    )


def _sizes_differ(name: str) -> UserError:
    return UserError(
        f"The images of {name!r} differ in size, and a batch needs one size. Set one with "
        "--config.data.image_size=224 (224 is usual for photographs)."
    )


def _without(seen: _Seen, held_out: Sequence[int]) -> _Seen:
    """The classes that are not held out, and their images."""
    if not held_out:
        return seen
    known = [label for label in range(seen.info.num_classes) if label not in held_out]
    return _Seen(
        holdout.OfClasses(seen.train, known),
        holdout.OfClasses(seen.test, known),
        None if seen.validation is None else holdout.OfClasses(seen.validation, known),
        holdout.info_without(seen.info, held_out),
    )


def _studied(
    config: DataConfig, train: Source, rows: np.ndarray, info: Info
) -> tuple[Source, np.ndarray, Info]:
    """The training rows as a study wants them: fewer, long-tailed, or with wrong labels."""
    labels, seed, said = train.labels()[rows], config.split_seed, []
    if config.per_class:
        rows = rows[studies.per_class(labels, config.per_class, seed)]
        said.append(f"at most {config.per_class} training images a class")
    if config.imbalance > 1:
        rows = rows[studies.long_tailed(labels, info.num_classes, config.imbalance, seed)]
        said.append(f"long-tailed by {config.imbalance:g}")
    if config.label_noise:
        targets = None
        if config.label_noise_kind == "asymmetric":
            targets = studies.confusions(info.name, info.class_names)
        clean = train.labels()
        wrong = clean.copy()
        wrong[rows] = studies.noisy(
            clean[rows], config.label_noise, targets, info.num_classes, seed
        )
        train = studies.Relabelled(train, wrong)
        share = np.mean(wrong[rows] != clean[rows])
        said.append(f"{share:.4g} of the training labels wrong ({config.label_noise_kind})")
    if said:
        info = dataclasses.replace(info, source=f"{info.source}; {', '.join(said)}")
    return train, rows, info


def _sampled(config: DataConfig, train: Split, info: Info) -> tuple[Split, Sampling]:
    """The training split with what is mixed in, and how the stream visits it."""
    if config.sampling == "class_balanced":
        return train, sampling.class_balanced(train.labels())
    if not config.mixture:
        return train, sampling.shuffled(len(train))
    sources: list[Source] = [Subset(train.source, train.rows)]
    labels_of = [np.arange(info.num_classes, dtype=np.int32)]
    for name, _ in config.mixture:
        other = _seen(dataclasses.replace(config, dataset=name))
        other = _without(other, holdout.shared(info.held_out_names, other.info))
        mixture.check_shapes((info, other.info))
        sources.append(other.train)
        labels_of.append(mixture.labels_in(info, other.info))
    together = mixture.Concatenated(tuple(sources), tuple(labels_of))
    chosen = sampling.mixture(
        [len(source) for source in sources],
        [1.0, *(weight for _, weight in config.mixture)],
        [config.dataset, *(name for name, _ in config.mixture)],
    )
    return Split("train", together, np.arange(len(together))), chosen


def _check_options(config: DataConfig) -> None:
    """Refuses options where no data set reads them; one that is mixed in may."""
    named = [config.dataset, *(name for name, _ in config.mixture)]
    known = {*_NAMED, *_PREFIXED}
    if config.options and {name.partition(":")[0] for name in named} <= known - {*_WITH_OPTIONS}:
        raise UserError(
            f"config.data.options.{min(config.options)}: the data set {config.dataset!r} takes no "
            f"options; only {', '.join(map(repr, sorted(_WITH_OPTIONS)))} does."
        )


def load_shifted(name: str, config: DataConfig) -> Shifted:
    """A published shifted test set, its images as the configuration wants its own seen.

    Args:
      name: of `shifted.names`.
      config: of the model's own data; `root` says where the set lies.

    Raises:
      UserError: no such set, its files are missing or damaged, or images of its shape cannot
        be seen so.
    """
    found = shifted.load(name, root_folder(config))
    height, width, stored = found.image_shape
    if not config.image_size and 0 in found.image_shape:
        raise _sizes_differ(name)
    channels = config.channels or stored
    if channels != stored and height:
        raise UserError(
            f"The images of {name!r} have {stored} channels and are not turned into {channels}, "
            f"which config.data.channels={config.channels} of this model wants."
        )
    view = view_of(config, channels)

    def seen(source: Source | Encoded) -> Source:
        # Image by image, as it is read: resized copies of all parts would fill the memory.
        if isinstance(source, Encoded):
            return DecodedSource(source, view)
        as_it_is = not view.size or (view.crop == "none" and view.size == height == width)
        return source if as_it_is else ViewedSource(source, view)

    shape = (config.image_size or height, config.image_size or width, channels)
    return dataclasses.replace(
        found,
        parts={part: seen(source) for part, source in found.parts.items()},
        clean=None if found.clean is None else seen(found.clean),
        image_shape=shape,
    )


def view_of(config: DataConfig, channels: int) -> View:
    """The view of images that a configuration asks for; what it leaves open is the view's own."""
    return View(
        size=config.image_size,
        channels=channels,
        crop=View.crop if config.crop == "auto" else config.crop,
        crop_fraction=config.crop_fraction or View.crop_fraction,
        interpolation=(
            View.interpolation if config.interpolation == "auto" else config.interpolation
        ),
        area=config.crop_area,
        aspect=config.crop_aspect,
    )


def names() -> tuple[str, ...]:
    """Every value that `config.data.dataset` takes, prefixes with their argument in capitals."""
    prefixed = (f"{prefix}:{argument}" for prefix, (argument, _) in _PREFIXED.items())
    return tuple(sorted((*_NAMED, *prefixed)))


def root_folder(config: DataConfig) -> Path:
    """The folder of official files: `config.root`, else $IMGREC_DATA, else ~/.cache/imgrec."""
    folder = config.root or os.environ.get("IMGREC_DATA") or "~/.cache/imgrec"
    return Path(folder).expanduser()


def load_official(config: DataConfig) -> Official:
    """The data set as its publishers cut it, its images as they are.

    Raises:
      UserError: no such data set, or its files are missing or damaged.
    """
    name, root = config.dataset, root_folder(config)
    if name in _NAMED:
        return _NAMED[name](config, root)
    prefix, _, argument = name.partition(":")
    if prefix not in _PREFIXED:
        raise unknown("data set", name, names())
    placeholder, loader = _PREFIXED[prefix]
    if not argument:
        raise UserError(
            f"The data set {name!r} lacks its {placeholder}; write "
            f"--config.data.dataset={prefix}:{placeholder}, for example {prefix}:mnist."
        )
    return loader(argument, config, root)
