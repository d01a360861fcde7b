"""A classical method under the protocol of networks: features by hand, a classifier on them.

    python -m imgrec.main --config=configs/classical.py:features=hog,classifier=svm,data=mnist

FEATURES is pixels, hog, lbp, colour, edges, gabor or words; several, as hog+colour; or network
with weights=RUN, the folder of a run (or the name of published weights), whose penultimate
features are taken. CLASSIFIER is knn, svm, linear_svm, logistic_regression, random_forest or
gradient_boosting. DATA is any data set. Further:
  strokes set upright first: deskew=yes
  options: --config.features.options.cell=8 --config.classifier.options.k=5; of several values,
      as --config.classifier.options.c="(1.0, 10.0)", validation chooses
  computed features shared by runs: --config.features.cache=FOLDER
README's results table has the test accuracy to expect.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imgrec.config import (
    ClassifierConfig,
    DataConfig,
    Experiment,
    FeaturesConfig,
    InitConfig,
    ModelConfig,
)

KNOWN = {
    "features": "hog",
    "classifier": "svm",
    "data": "digits",
    "deskew": "no",
    "weights": "",
}
# Images that validation takes from training; they are for choosing, and classical methods have
# little to choose.
VALIDATION = {"mnist": "2000", "fashion_mnist": "2000", "cifar10": "2000"}
# By features, classifier and data set; what is not named here is the classifier's default.
OPTIONS: dict[tuple[str, str, str], dict[str, Any]] = {
    # Of 0.0134 (the default), 0.02, 0.03 and 0.04 the best by validation, fitted to 8,000 images.
    ("pixels", "svm", "mnist"): {"c": 10.0, "gamma": 0.03},
}
VIEW = ("image_size", "channels", "crop", "crop_fraction", "interpolation")


def get_config(arg: str = "") -> Experiment:
    """The experiment of an argument such as "features=hog,classifier=svm,data=mnist"."""
    chosen = dict(KNOWN)
    for part in filter(None, arg.split(",")):
        key, equals, value = part.partition("=")
        if key not in KNOWN or not equals:
            raise ValueError(
                f"{part!r} in the argument {arg!r} is none of "
                + ", ".join(f"{name}=..." for name in KNOWN)
            )
        chosen[key] = value
    if chosen["deskew"] not in ("yes", "no"):
        raise ValueError(f"deskew={chosen['deskew']!r} is none of yes, no")
    features, classifier, data = chosen["features"], chosen["classifier"], chosen["data"]
    upright = chosen["deskew"] == "yes"
    model, view = _network(chosen["weights"])
    known = (Path(data.partition(":")[2] or data).stem, features, classifier)
    return Experiment(
        name="_".join([*known, *(["deskewed"] if upright else [])]).replace("+", "_"),
        data=DataConfig(dataset=data, validation=VALIDATION.get(data, "10%"), workers=2, **view),
        model=model,
        init=InitConfig(weights=chosen["weights"]),
        features=FeaturesConfig(name=features, deskew=upright),
        classifier=ClassifierConfig(
            name=classifier,
            options=ConfigDict(OPTIONS.get((features, classifier, data), {})),
        ),
    )


def _network(weights: str) -> tuple[ModelConfig, dict[str, Any]]:
    """The network of a run and how it saw images, or the one that weights are named after."""
    if not weights:
        return ModelConfig(), {}
    saved = Path(weights) / "config.json"
    if not saved.is_file():
        return ModelConfig(name=weights), {}
    experiment = json.loads(saved.read_text())["experiment"]
    model = experiment["model"]
    view = {field: experiment["data"][field] for field in VIEW}
    return ModelConfig(name=model["name"], options=ConfigDict(model["options"])), view
