"""A teacher is a finished run of the same classes and images; nothing of it is trained or saved."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from imgrec.errors import UserError
from imgrec.training import loop, memory, rules, run_folder
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.plan import plan


@pytest.fixture
def teacher(tiny, tmp_path):
    """A run folder with a smaller network's variables; its configuration is `tiny`'s."""
    folder = tmp_path / "teacher"
    run_folder.open_folder(folder, tiny, allow_change=False, needs_bytes=0)
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save_best(1, 0.5, plan(tiny).initial_state().variables)
    return folder


def edit(folder, section, **values):
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    saved["experiment"][section] |= values
    path.write_text(json.dumps(saved))


def test_a_run_learns_from_it(tiny, teacher, tmp_path):
    tiny.distill.teacher, tiny.seed, tiny.train.accumulate = str(teacher), 1, 2
    planned = plan(tiny)
    assert planned.weights[-1].startswith("teacher: resnet8 of ")
    assert planned.weights[-1].endswith("parameters; alpha 0.9, temperature 4")
    before = jax.device_get(planned.teacher.variables)
    run_folder.open_folder(tmp_path / "run", tiny, allow_change=False, needs_bytes=0)
    outcome = loop.train(planned, tmp_path / "run", Console(file=io.StringIO()))
    assert outcome.step == 6
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = next(line for line in lines if "train/distillation" in line)
    np.testing.assert_allclose(
        logged["train/loss"],
        0.1 * logged["train/cross_entropy"] + 0.9 * logged["train/distillation"],
        rtol=1e-5,
    )
    jax.tree.map(np.testing.assert_array_equal, planned.teacher.variables, before)
    # The state, and so the checkpoint, is that of a run without a teacher.
    tiny.distill.teacher = ""
    assert rules.names(plan(tiny).state) == rules.names(planned.state)


def test_its_variables_are_arguments_of_the_program(tiny, teacher):
    tiny.distill.teacher = str(teacher)
    planned = plan(tiny)
    with_teacher, _ = sizes(planned)
    tiny.distill.teacher = ""
    alone, _ = sizes(plan(tiny))
    count = len(jax.tree.leaves(planned.teacher.variables))
    assert with_teacher == alone + count
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(planned.teacher.variables))
    assert memory.of_step(planned).data == memory.of_step(plan(tiny)).data + held


def sizes(planned):
    """How many arrays the compiled step takes, and a batch."""
    feed = planned.feed()
    batch = feed.take_steps(1)
    feed.close()
    taught = None if planned.teacher is None else planned.teacher.variables
    step = jax.make_jaxpr(
        lambda state, batch, taught: planned.train_step(taught)(state, planned.take(batch))
    )(planned.state, batch, taught)
    large = [value for value in step.consts if np.size(value) > 10]
    assert not large
    return len(step.jaxpr.invars), batch


def test_over_devices(tiny, teacher):
    tiny.distill.teacher = str(teacher)
    tiny.mesh.data, tiny.mesh.fsdp = 2, 4
    planned = plan(tiny)
    for leaf in jax.tree.leaves(planned.teacher.variables):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == 8


def test_no_such_teacher(tiny, tmp_path):
    tiny.distill.teacher = str(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"config\.distill\.teacher=.*is no run folder with a check"
    ):
        plan(tiny)


def test_a_folder_without_its_configuration(tiny, teacher):
    (teacher / "config.json").unlink()
    tiny.distill.teacher = str(teacher)
    with pytest.raises(UserError, match=r"has no readable config\.json"):
        plan(tiny)


def test_a_teacher_of_other_classes(tiny, teacher, tmp_path, write_images):
    tiny.data.dataset, tiny.data.validation = f"folder:{write_images(tmp_path / 'two')}", "10%"
    tiny.data.image_size, tiny.data.channels = 8, 1
    tiny.distill.teacher = str(teacher)
    with pytest.raises(UserError, match=r"was trained on 'digits', by whose mean.*folder:"):
        plan(tiny)
    edit(teacher, "augment", mean=[0.5], std=[0.2])
    with pytest.raises(UserError, match="knows 10 classes, and this data set has 2"):
        plan(tiny)


def test_a_teacher_of_other_images(tiny, teacher):
    tiny.data.channels = 3
    tiny.distill.teacher = str(teacher)
    with pytest.raises(UserError, match="does not take these images"):
        plan(tiny)


def test_its_own_normalisation_is_kept(tiny, teacher):
    tiny.distill.teacher = str(teacher)
    edit(teacher, "augment", mean=[0.5], std=[0.25])
    planned = plan(tiny)
    assert (planned.teacher.mean, planned.teacher.std) == ((0.5,), (0.25,))
    assert planned.task.mean == planned.dataset.info.mean
