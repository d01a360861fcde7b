import numpy as np
import pytest

from imgrec.evaluation import bootstrap
from imgrec.evaluation.robustness.scalars import Scalars, finite


def test_numbers_come_with_intervals_or_reasons():
    weights = bootstrap.resamples(50)
    values = np.arange(50) % 3 == 0
    scalars = Scalars(weights)
    scalars.mean("share", values)
    scalars.mean("loss", np.array([1.0, np.inf] * 25))
    scalars.set("error", 0.25, (0.1, np.float64(0.5)))
    scalars.set("nothing", float("nan"), [float("nan")] * 2)
    scalars.lack("relative", "no reference")
    found = scalars.report()
    assert found["share"] == pytest.approx(17 / 50)
    assert found["error"] == 0.25
    assert found["loss"] is found["nothing"] is found["relative"] is None
    assert found["intervals"] == {
        "share": bootstrap.mean_interval(values, weights),
        "loss": None,
        "error": [0.1, 0.5],
        "nothing": None,
        "relative": None,
    }
    assert set(found["reasons"]) == {"loss", "nothing", "relative"}
    assert found["reasons"]["relative"] == "no reference"


def test_what_is_not_finite_is_none():
    assert finite(np.float32(0.5)) == 0.5
    assert finite(float("inf")) is finite(float("nan")) is None
