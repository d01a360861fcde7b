"""From a network that has learnt one thing to another data set: fitted heads, and fine-tuning.

    python -m imgrec.main --config=configs/transfer.py:method=METHOD,weights=WEIGHTS,data=DATA
    python -m imgrec.main --config.data.per_class=25 --workdir=runs/fashion_probe \
        --config=configs/transfer.py:method=probe,weights=runs/mnist_lenet,data=fashion_mnist

METHOD is one of
  probe      logistic regression on the network's features (L-BFGS, regularisation by validation)
  knn        a vote of the nearest neighbours among the features of the training images
  prototype  the nearest class mean of features
  finetune   all layers are trained, those near the input by less (layer-wise decay, 0.65)
  scratch    the same network and recipe without the weights; transfer is worth the distance

WEIGHTS is the folder of a run, whose network and view of images are taken, or the name of
published weights; with model=NAME, any file of weights. DATA is any data set. Further:
  probe first, fine-tune from there (Kumar et al. 2022): weights=THE_PROBES_FOLDER
      --config.init.new_head=false
  thaw layer by layer: --config.optimizer.unfreeze_every=100st
  hold layers still: --config.optimizer.freeze="('stem/.*',)"
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imgrec.config import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    Experiment,
    HeadConfig,
    InitConfig,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)

FITTED = ("probe", "knn", "prototype")
METHODS = (*FITTED, "finetune", "scratch")
VIEW = ("image_size", "channels", "crop", "crop_fraction", "interpolation")
KNOWN = {"method": "finetune", "weights": "", "data": "digits", "model": ""}


def get_config(arg: str = "") -> Experiment:
    """The experiment of an argument such as "method=probe,weights=runs/x,data=cifar10"."""
    chosen = dict(KNOWN)
    for part in filter(None, arg.split(",")):
        key, equals, value = part.partition("=")
        if key not in KNOWN or not equals:
            raise ValueError(
                f"{part!r} in the argument {arg!r} is none of "
                + ", ".join(f"{name}=..." for name in KNOWN)
            )
        chosen[key] = value
    method, weights = chosen["method"], chosen["weights"]
    if method not in METHODS:
        raise ValueError(f"method={method!r} is none of {', '.join(METHODS)}")
    if not weights and not (method == "scratch" and chosen["model"]):
        raise ValueError(
            "weights=FOLDER names the run to start from, as in "
            f"configs/transfer.py:method={method},weights=runs/mnist_lenet_modern,data=fashion_mnist"
            "; only method=scratch does with model=NAME alone"
        )
    scratch = method == "scratch"
    model, view = _network(chosen["model"], weights)
    return Experiment(
        name=f"transfer_{Path(chosen['data'].partition(':')[2] or chosen['data']).stem}_{method}",
        data=DataConfig(dataset=chosen["data"], batch_size=64, validation="10%", **view),
        augment=AugmentConfig(),
        model=model,
        init=InitConfig(weights="" if scratch else weights, new_head=not scratch),
        head=HeadConfig(name=method if method in FITTED else "trained"),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=3e-3 if scratch else 1e-3,
            weight_decay=0.05,
            clip_norm=1.0,
            layer_decay=1.0 if scratch else 0.65,
        ),
        schedule=ScheduleConfig(name="cosine", warmup="10%"),
        train=TrainConfig(duration="500st"),
        eval=EvalConfig(every="20%"),
        checkpoint=CheckpointConfig(every="50%"),
        log=LogConfig(every="20st"),
    )


def _network(name: str, weights: str) -> tuple[ModelConfig, dict[str, Any]]:
    """The network of the run and how it saw images, or the one that weights are named after."""
    saved = Path(weights) / "config.json"
    if name or not saved.is_file():
        return ModelConfig(name=name or weights), {}
    experiment = json.loads(saved.read_text())["experiment"]
    model = experiment["model"]
    view = {field: experiment["data"][field] for field in VIEW}
    return ModelConfig(name=model["name"], options=ConfigDict(model["options"])), view
