"""Sections stand alone, and what they share is computed once."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.data.dataset import ArraySource, Dataset, Info, Split
from imgrec.data.sampling import shuffled
from imgrec.errors import UserError
from imgrec.evaluation import suite
from imgrec.evaluation.subject import Subject
from imgrec.evaluation.suite import Evaluated, Found, MissingError, Options, Section


class Mean(nn.Module):
    """Logits from the mean level."""

    @nn.compact
    def __call__(self, images, train):
        level = images.mean(axis=(1, 2, 3))
        features = jnp.stack([level, 1 - level], axis=-1)
        self.sow("intermediates", "pre_logits", features)
        return 10 * features


def subject() -> Subject:
    return Subject(
        module=Mean(),
        variables={},
        mean=(0.0,),
        std=(1.0,),
        image_shape=(4, 4, 1),
        class_names=("light", "dark"),
        batch_size=8,
        put=lambda batch: jax.tree.map(jnp.asarray, dict(batch)),
    )


def dataset(validation: bool = True) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    source = ArraySource(images, (np.arange(60) % 2).astype(np.int32))
    rows = np.arange(60)
    info = Info("made", 2, ("light", "dark"), (4, 4, 1), (0.5,), (0.5,), "made here")
    return Dataset(
        train=Split("train", source, rows[:30]),
        validation=Split("validation", source, rows[30:40]) if validation else None,
        test=Split("test", source, rows[40:]),
        info=info,
        sampling=shuffled(30),
    )


def evaluated(**changed) -> Evaluated:
    given = {"subject": subject(), "dataset": dataset()} | changed
    split = given.get("split", given["dataset"].test if given["dataset"] else None)
    return Evaluated(class_names=("light", "dark"), options=Options(), **{**given, "split": split})


@pytest.fixture
def counted(monkeypatch):
    """The splits that passes were made over."""
    passes = []
    over = Subject.over

    def counting(self, split, compute):
        passes.append(split.name)
        return over(self, split, compute)

    monkeypatch.setattr(Subject, "over", counting)
    return passes


def test_what_sections_share_is_computed_once_and_ahead(counted):
    e = evaluated()
    with e.computing():
        ahead = [e.train_sample, e.outputs, e.validation_outputs, e.predictions, e.outputs]
    assert counted == ["test", "validation", "train"]
    later = evaluated()
    for first, second in zip(
        ahead[:3], (later.train_sample, later.outputs, later.validation_outputs), strict=True
    ):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


def test_leaving_early_ends_the_passes(monkeypatch):
    e = evaluated()
    over = Subject.over

    def slow(self, split, compute):
        if split.name == "train":  # begins only after the block was left
            while not e._stopped:
                pass
        return over(self, split, compute)

    monkeypatch.setattr(Subject, "over", slow)
    with pytest.raises(KeyboardInterrupt), e.computing():
        assert len(e.outputs["logits"]) == 20
        raise KeyboardInterrupt
    with pytest.raises(MissingError, match="stopped"):
        e._ahead["train"].result()


def test_a_pass_that_fails_fails_those_who_ask_for_it(monkeypatch):
    over = Subject.over

    def broken(self, split, compute):
        if split.name == "validation":
            raise UserError("a file is gone")
        return over(self, split, compute)

    monkeypatch.setattr(Subject, "over", broken)
    e = evaluated()
    sections = (
        Section("test", "test", lambda e: {"n": len(e.outputs["label"])}),
        Section("validation", "validation", lambda e: {"n": len(e.validation.label)}),
        Section("train", "train", lambda e: Found({"n": len(e.train_sample["label"])}, {"x": 1})),
    )
    told, drawn = [], {}
    with e.computing():
        report = suite.run(
            e, sections, lambda done, total: told.append((done, total)), drawn.__setitem__
        )
    assert report.numbers == {"test": {"n": 20}, "train": {"n": 30}}
    assert report.missing == {"validation": "a file is gone"} and not report.defects
    assert drawn == {"test": Found({"n": 20}), "train": Found({"n": 30}, {"x": 1})}
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_faults_of_ours_are_kept_apart_and_unwanted_sections_do_not_run():
    def broken(e):
        raise RuntimeError("ours")

    sections = (
        Section("broken", "broken", broken),
        Section("unwanted", "unwanted", broken, lambda options: options.suite == "full"),
    )
    report = suite.run(evaluated(), sections, lambda done, total: None)
    assert report.missing == {"broken": "RuntimeError: ours"}
    assert "Traceback" in report.defects["broken"]


def test_a_figure_that_fails_leaves_its_numbers_and_the_others():
    def draw(name, found):
        if name == "first":
            raise RuntimeError("no ink")

    sections = [Section(name, name, lambda e: {"n": 1}) for name in ("first", "second")]
    report = suite.run(evaluated(), sections, lambda done, total: None, draw)
    assert report.numbers == {"first": {"n": 1}, "second": {"n": 1}}
    assert report.missing == {"first": "RuntimeError: no ink"} and "first" in report.defects


def test_what_is_not_there_is_said_with_what_would_bring_it():
    alone = evaluated(subject=None, dataset=None)
    for name, hint in (("subject", "--offline"), ("split", "--offline"), ("dataset", "data set")):
        with pytest.raises(MissingError, match=hint):
            getattr(alone, name)
    without = evaluated(dataset=dataset(validation=False))
    assert not without.has_validation
    with pytest.raises(MissingError, match=r"data\.validation"):
        without.validation  # noqa: B018
    itself = dataset()
    on_validation = evaluated(dataset=itself, split=itself.validation)
    with pytest.raises(MissingError, match="tested on"):
        on_validation.validation  # noqa: B018


def test_a_part_keeps_the_shares_of_classes():
    e = evaluated()
    part = e.part(10)
    assert len(part) == 10 and np.bincount(part.labels()).tolist() == [5, 5]
    assert e.part(20) is e.split
    assert dataclasses.replace(part, rows=part.rows) is not part


def test_outputs_of_another_split_are_computed_once(counted):
    e, other = evaluated(), dataset().train
    assert e.outputs_of(other) is e.outputs_of(other)
    assert counted == ["train"]
