"""LeNet-5 on scikit-learn's digits: real images that need no download; `make demo`.

    python -m imgrec.main --config=configs/digits_lenet.py

About a minute on two cores. README's results table has the test accuracy to expect.
"""

from ml_collections import ConfigDict

from imgrec.config import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    Experiment,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config(arg: str = "") -> Experiment:
    """The experiment; it takes no argument."""
    if arg:
        raise ValueError(f"digits_lenet takes no argument, got {arg!r}")
    return Experiment(
        # The paper's network reads 32x32 pixels; these digits have 8x8.
        data=DataConfig(dataset="digits", image_size=32, batch_size=64, validation="10%"),
        augment=AugmentConfig(pad_crop=2, rotation=10.0),
        model=ModelConfig(
            name="lenet5",
            options=ConfigDict(
                {"activation": "relu", "pool": "max", "connections": "full", "head": "linear"}
            ),
        ),
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=2e-3, weight_decay=0.05, options=ConfigDict({"b2": 0.99})
        ),
        schedule=ScheduleConfig(name="cosine", warmup="1ep"),
        train=TrainConfig(duration="40ep"),
        eval=EvalConfig(every="5ep", select="last"),
        checkpoint=CheckpointConfig(every="10ep"),
        log=LogConfig(every="5ep"),
    )
