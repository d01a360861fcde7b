"""Images in, batches out: `load` a data set by name, then stream it with `pipeline`.

A format is one file with one function that returns an `Official`, registered below; what
follows (resizing, the validation cut) is the same for all. Nothing here needs TensorFlow, its
data sets or PyTorch to be installed.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from imgrec.config import DataConfig
from imgrec.data import cifar, digits, idx, scenes, splits, tfds
from imgrec.data.dataset import ArraySource, Dataset, Info, Official, Source, Split
from imgrec.data.resize import resized
from imgrec.errors import UserError, unknown

__all__ = ["ArraySource", "Dataset", "Info", "Source", "Split", "load", "names", "root_folder"]

# name -> function of the folder that holds official files.
_NAMED: Mapping[str, Callable[[Path], Official]] = {
    "cifar10": lambda root: cifar.load(cifar.CIFAR10, root),
    "cifar100": lambda root: cifar.load(cifar.CIFAR100, root),
    "digits": lambda root: digits.load(),
    "fashion_mnist": lambda root: idx.load(idx.FASHION_MNIST, root),
    "mnist": lambda root: idx.load(idx.MNIST, root),
    "scenes": lambda root: scenes.load(),
}
# "prefix:ARGUMENT" -> function of the argument and the folder.
_PREFIXED: Mapping[str, tuple[str, Callable[[str, Path], Official]]] = {
    "tfds": ("NAME", tfds.load),
}


def load(config: DataConfig) -> Dataset:
    """Loads the data set that the configuration names, and cuts validation from its train split.

    Args:
      config: `dataset`, `root`, `validation`, `split_seed` and `image_size` are read.

    Raises:
      UserError: no such data set, its files are missing or damaged, its images differ in size
        and `image_size` is 0, or the validation cut is impossible.
    """
    official = _load_official(config.dataset, root_folder(config))
    train, test, info = official.train, official.test, official.info
    if config.image_size:
        train, test = resized(train, config.image_size), resized(test, config.image_size)
        shape = (config.image_size, config.image_size, info.image_shape[2])
        info = dataclasses.replace(info, image_shape=shape)
    elif 0 in info.image_shape:
        raise UserError(
            f"The images of {config.dataset!r} differ in size, and a batch needs one size. Set "
            "one with --config.data.image_size=224 (224 is usual for photographs)."
        )
    train_rows, validation_rows = splits.cut(train, config.validation, config.split_seed)
    return Dataset(
        train=Split("train", train, train_rows),
        validation=None if validation_rows is None else Split("validation", train, validation_rows),
        test=Split("test", test, np.arange(len(test))),
        info=info,
    )


def names() -> tuple[str, ...]:
    """Every value that `config.data.dataset` takes, prefixes with their argument in capitals."""
    prefixed = (f"{prefix}:{argument}" for prefix, (argument, _) in _PREFIXED.items())
    return tuple(sorted((*_NAMED, *prefixed)))


def root_folder(config: DataConfig) -> Path:
    """The folder of official files: `config.root`, else $IMGREC_DATA, else ~/.cache/imgrec."""
    folder = config.root or os.environ.get("IMGREC_DATA") or "~/.cache/imgrec"
    return Path(folder).expanduser()


def _load_official(name: str, root: Path) -> Official:
    if name in _NAMED:
        return _NAMED[name](root)
    prefix, _, argument = name.partition(":")
    if prefix not in _PREFIXED:
        raise unknown("data set", name, names())
    placeholder, loader = _PREFIXED[prefix]
    if not argument:
        raise UserError(
            f"The data set {name!r} lacks its {placeholder}; write "
            f"--config.data.dataset={prefix}:{placeholder}, for example {prefix}:mnist."
        )
    return loader(argument, root)
