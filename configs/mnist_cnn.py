"""A small modern CNN on MNIST; README's results table has the test accuracy to expect.

python -m imgrec.main --config=configs/mnist_cnn.py --config.data.root=FOLDER
"""

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
    """The experiment; the argument may name another 28x28 data set, as "fashion_mnist"."""
    return Experiment(
        data=DataConfig(dataset=arg or "mnist", batch_size=128, validation="5000"),
        augment=AugmentConfig(pad_crop=2, rotation=10.0),
        model=ModelConfig(name="small_cnn"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3, weight_decay=0.02),
        schedule=ScheduleConfig(name="one_cycle"),
        train=TrainConfig(duration="10ep"),
        eval=EvalConfig(every="1ep", select="last"),
        checkpoint=CheckpointConfig(every="1ep"),
        log=LogConfig(every="100st"),
    )
