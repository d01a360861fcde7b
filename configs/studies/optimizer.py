"""Which optimizer, and which schedule? The small CNN on Fashion-MNIST.

    python -m imgrec.ablate --study=configs/studies/optimizer.py --plan   # all images, 20 epochs
    python -m imgrec.ablate --study=configs/studies/optimizer.py:cpu      # 2,000 a class, six

Learning rates are usual ones for each optimizer, and not tuned: a row that loses may win at
another rate, which a sweep would find.
"""

from imgrec.ablation import Change, Rate, Study

_CPU = {
    "data.per_class": 2000,
    "train.duration": "6ep",
    "eval.every": "6ep",
    "checkpoint.every": "2ep",
    "log.tensorboard": False,
}


def _optimizer(name: str, rate: float, decay: float) -> Change:
    fields = {
        "optimizer.name": name,
        "optimizer.learning_rate": rate,
        "optimizer.weight_decay": decay,
    }
    return Change(name, fields)


def get_study(scale: str = "") -> Study:
    """All images and twenty epochs, or with "cpu" fewer of both."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    return Study(
        question="Which optimizer, and which schedule? The small CNN on Fashion-MNIST.",
        base="../fashion_mnist_cnn.py",
        base_name="adamw_one_cycle",
        settings=_CPU if cpu else {},
        changes=[
            *(
                Change(name, {"schedule.name": name})
                for name in ("constant", "step", "cosine", "linear")
            ),
            _optimizer("sgd", 0.1, 5e-4),
            _optimizer("lion", 3e-4, 0.2),
            _optimizer("lamb", 0.01, 0.02),
            _optimizer("muon", 0.02, 0.02),
        ],
        notes=(
            "Learning rates are usual ones and not tuned; another rate may change the order.",
            "No published table compares these optimizers and schedules on this data that we know "
            "of.",
        ),
        rate=Rate(5e10, "of the small CNN on two cores of an AMD EPYC") if cpu else None,
    )
