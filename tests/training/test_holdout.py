"""A run with classes held out: fed from the device or from the host, and tested on the known."""

import io

import numpy as np
import pytest
from rich.console import Console

from imgrec.training import loop, run_folder
from imgrec.training.plan import plan


@pytest.mark.parametrize("resident", ["on", "off"])
def test_a_run_knows_the_other_classes_alone(tiny, tmp_path, resident):
    tiny.data.holdout_classes, tiny.data.resident = ("3", "5"), resident
    planned = plan(tiny)
    run_folder.open_folder(tmp_path, tiny, allow_change=False, needs_bytes=0)
    outcome = loop.train(planned, tmp_path, Console(file=io.StringIO(), width=200))
    assert planned.resident == (resident == "on")
    assert outcome.test["n"] == len(planned.dataset.test) == 359 - len(planned.dataset.held_out)
    assert [row["name"] for row in outcome.test["per_class"]] == list("01246789")
    assert np.load(tmp_path / "evaluation/test/predictions.npz")["logits"].shape[1] == 8
