"""Scenes as a data set: rows are indices, and everything is worked out when it is asked for."""

import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt64

from imgrec.config import DataConfig
from imgrec.data.dataset import Batch, Example, Info, Official, channel_statistics
from imgrec.data.scenes.knobs import Knobs, parse
from imgrec.data.scenes.render import render
from imgrec.data.scenes.world import Scene, scene

_FIRST_TEST = 2**32  # index; training has those below
_MOST_FOR_STATISTICS = 2_000


def load(config: DataConfig) -> Official:
    """Two splits of one world, from disjoint ranges of the index.

    Args:
      config: `options` is read, as `imgrec.data.scenes.knobs.parse` takes it.

    Raises:
      UserError: an unknown option, or a value that it cannot take.
    """
    options = parse(config.options)
    train = SceneSource(options.seed, range(options.train_size), options.train)
    last_test = _FIRST_TEST + options.test_size
    test = SceneSource(options.seed, range(_FIRST_TEST, last_test), options.test)
    mean, std = channel_statistics(train, sample=_MOST_FOR_STATISTICS)
    side = options.train.resolution
    info = Info(
        name="scenes",
        num_classes=len(options.train.classes),
        class_names=options.train.classes,
        image_shape=(side, side, 3),
        mean=mean,
        std=std,
        source=(
            f"rendered with seed {options.seed}: {len(train):,} train and {len(test):,} test scenes"
        ),
    )
    return Official(train, test, info)


class SceneSource:
    """The scenes of a seed whose index lies in a range; row i is the i-th index of the range."""

    def __init__(self, seed: int, indices: range, knobs: Knobs):
        """Takes any range of indices below 2**64; nothing is worked out yet."""
        self.seed = seed
        self.indices = indices
        self.knobs = knobs

    def __len__(self) -> int:
        return len(self.indices)

    def scene(self, row: int) -> Scene:
        """What the row's image shows; `truth`, `captions` and `questions` start from it."""
        return scene(self.seed, self.indices[row], self.knobs)

    def __getitem__(self, row: int) -> Example:
        shown = self.scene(row)
        return {"image": render(shown), "label": np.int32(shown.label)}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """Renders the rows one after the other; nothing is random beyond (seed, index)."""
        side = self.knobs.resolution
        images = np.empty((len(rows), side, side, 3), np.uint8)
        labels = np.empty(len(rows), np.int32)
        for place, row in enumerate(rows.tolist()):
            shown = self.scene(row)
            images[place], labels[place] = render(shown), shown.label
        return {"image": images, "label": labels}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows, without rendering an image."""
        return self._known["label"]

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """Each factor of all rows, without rendering an image; those of objects are the target's.

        `clean_label`; `held_out` (of training: its shape, or its shape and colour); `group`
        ("agrees" or "conflicts", of the background's tint with the class) and `tint`; `colour`,
        `background`, `n_objects`, `clutter`; `scale` (diameter) and the centre `x`, `y`, in
        shares of the side; `angle` in degrees, from 0 to 360; `occlusion` (share hidden),
        `light`, `shading`, `direction` (of the light, in degrees); `index` in the world.
        """
        return {name: values for name, values in self._known.items() if name != "label"}

    residency = "static"

    @functools.cached_property
    def _known(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        columns: dict[str, list] = {name: [] for name in _TYPES}
        for row in range(len(self)):
            for name, value in _factors(self.scene(row)).items():
                columns[name].append(value)
        arrays: dict[str, np.ndarray] = {
            name: np.array(columns[name], kind) for name, kind in _TYPES.items()
        }
        for values in arrays.values():
            values.flags.writeable = False
        return arrays


_TYPES: Mapping[str, type] = {
    "label": np.int32,
    "clean_label": np.int32,
    "held_out": np.bool_,
    "group": np.str_,
    "tint": np.int32,
    "colour": np.str_,
    "background": np.str_,
    "n_objects": np.int32,
    "clutter": np.int32,
    "scale": np.float64,
    "x": np.float64,
    "y": np.float64,
    "angle": np.float64,
    "occlusion": np.float64,
    "light": np.float64,
    "shading": np.float64,
    "direction": np.float64,
    "index": np.uint64,
}


def _factors(shown: Scene) -> dict[str, int | float | str | bool]:
    target = shown.objects[0]
    return {
        "label": shown.label,
        "clean_label": shown.clean_label,
        "held_out": shown.held_out,
        "group": "agrees" if shown.cue_agrees else "conflicts",
        "tint": shown.background.tint,
        "colour": target.colour,
        "background": shown.background.kind,
        "n_objects": len(shown.objects),
        "clutter": len(shown.clutter),
        "scale": 2 * target.radius,
        "x": target.x,
        "y": target.y,
        "angle": target.angle % 360,
        "occlusion": shown.card.share if shown.card else 0.0,
        "light": shown.light,
        "shading": shown.shading,
        "direction": shown.direction,
        "index": shown.index,
    }
