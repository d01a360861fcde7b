"""Is a wide network better than a deep one? Wide residual networks on CIFAR-10.

    python -m imgrec.ablate --study=configs/studies/width_depth.py --plan
    python -m imgrec.ablate --study=configs/studies/width_depth.py:cpu

"cpu" trains thin networks on 1,000 images a class at 16x16 pixels for four epochs, deeper and
wider ones at two, three and four times the arithmetic of the base.
"""

from imgrec.ablation import Change, Published, Rate, Study

_CPU = {
    "data.per_class": 1000,
    "data.image_size": 16,
    "data.validation": "2000",
    "optimizer.learning_rate": 0.2,
    "schedule.name": "one_cycle",
    "schedule.options": {"peak_at": 0.25},
    "train.duration": "4ep",
    "eval.every": "4ep",
    "eval.select": "last",
    "log.every": "20st",
    "log.tensorboard": False,
}
_PUBLISHED = {"wrn28_10": "4.00", "wrn16_8": "4.27", "wrn40_4": "4.53", "wrn16_4": "5.02"}


def get_study(scale: str = "") -> Study:
    """The paper's networks and recipe, or with "cpu" thin ones and a short recipe."""
    if scale not in ("", "cpu"):
        raise ValueError(f"the scale is '' or 'cpu', not {scale!r}")
    cpu = scale == "cpu"
    base = "wrn16_1" if cpu else "wrn28_10"
    others = (
        ("wrn28_1", "wrn40_1", "wrn10_2", "wrn16_2", "wrn10_3")
        if cpu
        else ("wrn16_4", "wrn40_4", "wrn16_8")
    )
    note = "Read at second hand, in a table of reported means of a re-implementation."
    if cpu:
        note += " Our networks are smaller ones, and have no figure there that we know of."
    return Study(
        question="Is a wide network better than a deep one? Wide residual networks on CIFAR-10.",
        base="../cifar10_wrn.py",
        base_name=base,
        settings={"model.name": base} | (_CPU if cpu else {}),
        changes=[Change(name, {"model.name": name}) for name in others],
        published=Published(
            source="Zagoruyko and Komodakis 2016",
            metric="error on the CIFAR-10 test split, %"
            + (": " + ", ".join(f"{k} {v}" for k, v in _PUBLISHED.items()) if cpu else ""),
            values={} if cpu else _PUBLISHED,
            note=note,
        ),
        rate=Rate(4.5e10, "of residual networks on two cores of an AMD EPYC") if cpu else None,
    )
