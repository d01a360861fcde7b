"""Every study in configs/studies/ resolves at both of its scales; nothing is trained."""

from pathlib import Path

import pytest

from imgrec import ablation, cli, models
from imgrec.ablation import Study, StudyRun
from imgrec.training import optimizers, resolving, schedules

FOLDER = Path(__file__).parents[2] / "configs" / "studies"
PATHS = sorted(FOLDER.glob("*.py"))
CLASSES = {"imagenet": 1000}


def load(path: Path, scale: str) -> tuple[Study, list[StudyRun]]:
    spec = f"{path}:{scale}" if scale else str(path)
    study = cli.load(spec, "get_study", Study, kind="study", others="")
    ablation.check(study)
    base, _ = cli.parse(["", f"--config={path.parent / study.base}"], lambda flags: None)
    return study, ablation.resolve(study, base, name="x", folder=Path("runs"))


@pytest.mark.parametrize("scale", ["", "cpu"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_can_be_made_and_says_how_to_run_it(path, scale):
    study, runs = load(path, scale)
    assert f"--study=configs/studies/{path.name}{scale and ':cpu'}" in path.read_text()
    assert len(study.seeds) == 3
    for run in runs:
        if run.seed == 0:
            experiment = resolving.resolve(run.experiment)
            optimizers.check(experiment.optimizer)
            schedules.check(experiment.schedule)
            models.create(experiment.model, CLASSES.get(experiment.data.dataset, 10))
    # A published figure has its source; where there is none, the study says so.
    assert study.published is not None or any("No published" in note for note in study.notes)
    if scale:
        assert study.rate is not None


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_scale_it_does_not_know_is_refused(path):
    with pytest.raises(cli.UserError, match="'large'"):
        cli.load(f"{path}:large", "get_study", Study, kind="study", others="")
