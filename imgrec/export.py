"""python -m imgrec.export RUN --naming=NAMING --to=FILE.safetensors: a run's weights for others.

RUN is the folder of a run, whose best variables are written under the names of another project
("timm", "torchvision", "transformers"), which then loads them. Exit codes: 0 done, 2 bad input.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from imgrec import cli, extensions, models
from imgrec import config as configs
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models import ImageShape
from imgrec.training import weights
from imgrec.transfer import writing

_USAGE = """usage: python -m imgrec.export RUN --naming=NAMING --to=FILE.safetensors

  RUN: the folder of a run with a checkpoint
"""

# Tried where a run took its images as they came; the sides of the data sets that have one.
_SIDES = (28, 32, 8, 64)


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    folder, given = _parse(argv)
    if not given.to:
        raise UserError("Where to? Give a file: --to=FILE.safetensors.")
    path = weights.best_variables(folder, "RUN")
    module, image_shape, like = _model(Path(folder), path, given.image_size)
    here = NamedSharding(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), PartitionSpec())
    variables = weights.restored(path, like, jax.tree.map(lambda _: here, like))
    for line in writing.write(Path(given.to), module, variables, image_shape, given.naming):
        print(line)
    return 0


def _model(folder: Path, path: Path, image_size: int) -> tuple[nn.Module, ImageShape, Any]:
    """The run's model, the shape of its images, and its variables' shapes.

    A configuration may leave the images' size to the data set, which is not read for this: the
    size is one for which the model has exactly the arrays that are there.
    """
    try:
        saved = json.loads((folder / "config.json").read_text())["experiment"]
        extensions.load(configs.from_dict(saved))
        model = ModelConfig(saved["model"]["name"], ConfigDict(saved["model"]["options"]))
        size, channels = saved["data"]["image_size"], saved["data"]["channels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{str(folder)!r} has no readable config.json ({error}). Give the folder of a finished "
            "run, for example runs/digits_lenet."
        ) from None
    found = weights.shapes_there(path)
    module = models.portable(models.create(model, found["params/head/bias"][0]))
    for shape in _shapes(model.name, image_size or size, channels):
        try:
            models.check(model, module.num_classes, shape)
        except UserError:
            continue
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        like = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
        like = {name: tree for name, tree in like.items() if name != "intermediates"}
        if weights.shapes(like) == found:
            return module, shape, like
    raise UserError(
        f"The arrays in {path} are not those of a {model.name} for images of a usual size. "
        "Say which size they had: --image_size=PIXELS."
    )


def _shapes(name: str, size: int, channels: int) -> Iterator[ImageShape]:
    usual = models.describe(name).image_shape[0]
    for side in [size] if size else [usual, *_SIDES]:
        for depth in [channels] if channels else [3, 1]:
            yield side, side, depth


def _parse(argv: Sequence[str]) -> tuple[str, flags.FlagValues]:
    """The run's folder and the flags."""
    given = flags.FlagValues()
    flags.DEFINE_string("naming", "timm", "whose names to use", flag_values=given)
    flags.DEFINE_string("to", "", "the file to write", flag_values=given)
    flags.DEFINE_integer(
        "image_size", 0, "of the run's images; 0 finds it out", lower_bound=0, flag_values=given
    )
    if cli.HELP & set(argv):
        print(_USAGE + cli.flag_help(given))
        sys.exit(0)
    rest = cli.read_flags(given, argv)
    if len(rest) != 1:
        raise UserError(f"Give the folder of one run; {len(rest)} were given.\n{_USAGE}")
    return rest[0], given


if __name__ == "__main__":
    cli.run(main)
