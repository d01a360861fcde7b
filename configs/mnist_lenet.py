"""LeNet-5 on MNIST (LeCun et al. 1998, Gradient-based learning applied to document recognition).

    python -m imgrec.main --config=configs/mnist_lenet.py --config.data.root=FOLDER
    python -m imgrec.main --config=configs/mnist_lenet.py:modern --config.data.root=FOLDER

The first is the paper's network (scaled tanh, trainable subsampling, Table I, RBF output),
the second the common one with ReLU and max-pooling. The paper's own figure is 0.95 % error.
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

MODERN = {"activation": "relu", "pool": "max", "connections": "full", "head": "linear"}


def get_config(arg: str = "") -> Experiment:
    """The paper's network, or with the argument "modern" today's."""
    if arg not in ("", "modern"):
        raise ValueError(f"the argument is '' or 'modern', not {arg!r}")
    return Experiment(
        data=DataConfig(dataset="mnist", batch_size=128, validation="5000"),
        augment=AugmentConfig(pad_crop=2, rotation=10.0),
        model=ModelConfig(name="lenet5", options=ConfigDict(MODERN if arg else {})),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3, weight_decay=0.01),
        schedule=ScheduleConfig(name="cosine", warmup="1ep"),
        train=TrainConfig(duration="20ep"),
        eval=EvalConfig(every="2ep", select="last"),
        checkpoint=CheckpointConfig(every="2ep"),
        log=LogConfig(every="100st"),
    )
