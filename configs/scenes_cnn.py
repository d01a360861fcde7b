"""The small CNN on synthetic scenes: drawn on the spot, no files, a run of seconds.

python -m imgrec.main --config=configs/scenes_cnn.py
python -m imgrec.main --config=configs/scenes_cnn.py:hard
python -m imgrec.main --config=configs/scenes_cnn.py:cue
python -m imgrec.main --config=configs/scenes_cnn.py --config.data.options.test_occlusion=0.5

`hard` turns every dial of appearance at once. With `cue`, the background's tint tells the class
in train and tells nothing in test: the model that trusts it fails there. Any other world is made
by `--config.data.options`, whose dials `imgrec/data/scenes/knobs.py` lists.
"""

from ml_collections import ConfigDict

from imgrec.config import (
    AugmentConfig,
    DataConfig,
    Experiment,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

# The largest of up to three objects is the one to name.
HARD = {
    "n_objects": (1, 3),
    "scale": (0.4, 0.6),
    "occlusion": (0.0, 0.4),
    "background": ("plain", "gradient", "stripes", "checker", "blobs"),
    "clutter": (0, 8),
    "light": (0.4, 1.0),
    "shading": (0.0, 0.6),
    "resolution": 48,
}
VARIANTS = {"": {}, "hard": HARD, "cue": {"cue": 0.95}}


def get_config(arg: str = "") -> Experiment:
    """The experiment; the argument is empty, "hard" or "cue"."""
    if arg not in VARIANTS:
        raise ValueError(f"scenes_cnn takes no argument, 'hard' or 'cue', got {arg!r}")
    options = ConfigDict(VARIANTS[arg])
    return Experiment(
        data=DataConfig(dataset="scenes", batch_size=64, options=options),
        augment=AugmentConfig(pad_crop=2, flip=True, cutout=4),
        model=ModelConfig(name="small_cnn"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3, weight_decay=0.02),
        train=TrainConfig(duration="5ep", ema=0.99),
        log=LogConfig(every="1ep"),
    )
