"""What a study may say, and which runs it means."""

from pathlib import Path

import pytest

from imgrec import ablation
from imgrec.ablation import Change, Published, Study
from imgrec.ablation.study import metric_names
from imgrec.config import Experiment
from imgrec.errors import UserError


def study(**changed) -> Study:
    given = {"question": "?", "base": "base.py", "seeds": (0, 1)}
    given["changes"] = (Change("ema", {"train.ema": 0.9}), Change("flip", {"augment.flip": True}))
    return Study(**{**given, **changed})


def resolved(given: Study) -> list[ablation.StudyRun]:
    ablation.check(given)
    return ablation.resolve(given, Experiment(name="base"), name="mine", folder=Path("runs"))


def test_every_row_is_run_once_a_seed_under_names_that_stay():
    runs = resolved(study(settings={"data.batch_size": 64}))
    assert [run.name for run in runs] == [
        "base_seed0",
        "base_seed1",
        "ema_seed0",
        "ema_seed1",
        "flip_seed0",
        "flip_seed1",
    ]
    assert [run.experiment.train.ema for run in runs] == [0, 0, 0.9, 0.9, 0, 0]
    assert {run.experiment.data.batch_size for run in runs} == {64}
    assert {run.experiment.name for run in runs} == {"mine"}
    assert len({run.fingerprint for run in runs}) == 6
    fewer = resolved(study(changes=study().changes[1:], settings={"data.batch_size": 64}))
    assert {run.name: run.fingerprint for run in fewer}.items() <= {
        run.name: run.fingerprint for run in runs
    }.items()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"changes": ()}, "no changes"),
        ({"seeds": ()}, r"no seeds. Give some, as in seeds=\(0, 1, 2\)"),
        ({"seeds": (0, 1, 0)}, "The seed 0 is there twice"),
        ({"seeds": (0, True)}, "expected whole numbers"),
        ({"seeds": (0, -1)}, r"config\.seed=-1 is impossible"),
        ({"changes": (Change("a", {"seed": 1}),)}, "sets the seed, which the study itself"),
        ({"changes": (Change("a", {"name": "x"}),)}, "sets the name"),
        ({"changes": (Change("a", {"train.emma": 1}),)}, "'a' of the study.*config.train.ema"),
        ({"settings": {"train.emma": 1}}, "settings of the study: Unknown field"),
        ({"changes": (Change("a", {}),)}, "'a' changes nothing"),
        ({"changes": (Change("a/b", {"train.ema": 0.9}),)}, "cannot name a folder"),
        ({"changes": (Change("base", {"train.ema": 0.9}),)}, "The change base is there twice"),
        ({"changes": (Change("a", {"train.ema": 0.9}),) * 2}, "The change a is there twice"),
        ({"changes": (Change("a", {"train.ema": 0.9}, "bas"),)}, "Did you mean 'base'"),
        ({"changes": (Change("a", {"train.ema": 0.9}, "a"),)}, "compared with: 'a'"),
        ({"changes": (Change("a", {"train.ema": 2.0}),)}, "The change 'a': config.train.ema=2"),
        ({"changes": (Change("a", {"train.ema": "x"}),)}, "'a': .*expected float"),
        ({"changes": (Change("a", {"train.ema": 0.0}),)}, "'base' and 'a' are the same experiment"),
        ({"axis": "data.perclass"}, r"axis of the study: Unknown field config\.data\.perclass"),
        ({"metric": "acuracy"}, "that no run reports: 'acuracy'. Did you mean 'accuracy'"),
        ({"published": Published("p", "m", {"emma": "1"})}, "Did you mean 'ema'"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(changed, said):
    with pytest.raises(UserError, match=said):
        resolved(study(**changed))


def test_metrics_are_those_that_runs_report():
    assert {"accuracy", "loss", "macro.f1", "matthews"} <= set(metric_names())
    assert not {"n", "confusion_matrix"} & set(metric_names())
