"""The report of a model, section by section: what each needs, and what becomes of it.

A section is a function of `Evaluated`, which computes what several of them share (features of
the test images, predictions for validation) once and only if asked. One that cannot be had, since
the model, a split or a column is not there, says why; the others appear all the same.
"""

import contextlib
import dataclasses
import gc
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from imgrec.config import DataConfig
from imgrec.data import Dataset, Shifted, Split
from imgrec.data import splits as cuts
from imgrec.errors import UserError
from imgrec.evaluation.predictions import Predictions
from imgrec.evaluation.subject import Subject

Outputs = Mapping[str, np.ndarray]  # logits, features, label, index of a split

TRAIN_SAMPLE = 10_000
"""Training images, at most, whose features other numbers are computed from."""

SUITES = ("standard", "full")


class MissingError(Exception):
    """A section cannot be had; the message says why, and what would bring it."""


@dataclass(frozen=True)
class Options:
    """What may be asked of a report beyond its suite.

    Attributes:
      suite: "standard", or "full" with the passes over corrupted, turned and attacked images.
      seed: of resamples and whatever else is drawn.
      columns: group columns to report on; () is all there are.
      reference: table of errors of a stated run, for mean corruption errors relative to it.
      unknown: splits of other data sets, by name, which the model is to tell from its own.
      shifted: published shifted sets, by name.
      adversarial: whether attacks are mounted; always in the full suite.
      projection: also by t-SNE, which takes a minute.
      held_out: whether the model's data set has classes that were held out of training.
      rendered: of the model's data, where its images can be rendered again.
    """

    suite: str = "standard"
    seed: int = 0
    columns: tuple[str, ...] = ()
    reference: Mapping[str, Any] | None = None
    unknown: Mapping[str, Split] = field(default_factory=dict)
    shifted: Mapping[str, Shifted] = field(default_factory=dict)
    adversarial: bool = False
    projection: bool = False
    held_out: bool = False
    rendered: DataConfig | None = None


class Evaluated:
    """A model's answers to a split, and what else sections may ask for."""

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        options: Options,
        predictions: Predictions | None = None,
        validation: Predictions | None = None,
        subject: Subject | None = None,
        split: Split | None = None,
        dataset: Dataset | None = None,
        progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    ):
        """Computes nothing yet.

        Args:
          class_names: one for each logit.
          options: of the report.
          predictions: saved ones, of the split; computed where there are none.
          validation: saved ones, of the validation split.
          subject: the model; None to work from saved predictions alone.
          split: that is evaluated.
          dataset: the model's own, for validation and training images.
          progress: is told how far a long stage is.
        """
        self.class_names = tuple(class_names)
        self.options = options
        self.progress = progress
        self._predictions, self._validation = predictions, validation
        self._subject, self._split, self._dataset = subject, split, dataset
        self._others: dict[int, Outputs] = {}
        self._ahead: dict[str, Future[Outputs]] = {}
        self._stopped = False

    @property
    def subject(self) -> Subject:
        """The model."""
        if self._subject is None:
            raise MissingError("it needs the model; leave out --offline")
        return self._subject

    @property
    def split(self) -> Split:
        """The images that are evaluated."""
        if self._split is None:
            raise MissingError("it needs the images; leave out --offline")
        return self._split

    @property
    def dataset(self) -> Dataset:
        """The model's own data set."""
        if self._dataset is None:
            raise MissingError("it needs the data set that the model was trained on")
        return self._dataset

    @cached_property
    def outputs(self) -> Outputs:
        """Of the split."""
        return self._shared("outputs", self.split)

    @cached_property
    def predictions(self) -> Predictions:
        """For the split."""
        return self._predictions or _predictions(self.outputs)

    @property
    def has_validation(self) -> bool:
        """Whether there is anything that choices may be made by."""
        return self._validation is not None or (
            self._subject is not None
            and self._dataset is not None
            and self._dataset.validation is not None
        )

    @cached_property
    def validation_outputs(self) -> Outputs:
        """Of the validation split."""
        if self.dataset.validation is None:
            raise MissingError("the run held no validation images out (config.data.validation)")
        if self._split is not None and self._split.name == "validation":
            raise MissingError("what it is fitted on must not be what it is tested on")
        return self._shared("validation", self.dataset.validation)

    @cached_property
    def validation(self) -> Predictions:
        """For the validation split."""
        if self._split is not None and self._split.name == "validation":
            raise MissingError("what it is fitted on must not be what it is tested on")
        if self._validation is not None:
            return self._validation
        return _predictions(self.validation_outputs)

    @cached_property
    def train_sample(self) -> Outputs:
        """Of training images, at most `TRAIN_SAMPLE`, drawn so that each class keeps its share."""
        return self._shared("train", self._of(self.dataset.train, TRAIN_SAMPLE))

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Makes the passes that most sections need in a thread of their own meanwhile.

        The network leaves the processor gaps, in which what is known already is counted; numpy's
        products take one thread for it, as more would wait in loops for cores that are taken. What
        is there by now, modules above all, stays until it is left, so the collector need not walk
        through it again and again. Leaving ends the passes after the batch at hand.
        """
        wanted: dict[str, Split] = {}
        if self._subject is not None and self._split is not None and self._dataset is not None:
            wanted["outputs"] = self._split
            if self._dataset.validation is not None and self._split.name != "validation":
                wanted["validation"] = self._dataset.validation
            if self._split.name != "train":
                wanted["train"] = self._of(self._dataset.train, TRAIN_SAMPLE)
        self._ahead = {name: Future() for name in wanted}

        def work() -> None:
            for name, split in wanted.items():
                try:
                    self._ahead[name].set_result(self._over(split))
                except BaseException as error:  # of whoever asks for it
                    self._ahead[name].set_exception(error)

        thread = threading.Thread(target=work, name="passes")
        gc.freeze()
        thread.start()
        try:
            with threadpool_limits(1, user_api="blas"):
                yield
        finally:
            self._stopped = True
            thread.join()
            gc.unfreeze()
            self._stopped = False

    def part(self, most: int) -> Split:
        """At most so many images of the split, drawn so that each class keeps its share."""
        return self._of(self.split, most)

    def outputs_of(self, split: Split) -> Outputs:
        """Of any other split, computed once."""
        if id(split) not in self._others:
            self._others[id(split)] = self._over(split)
        return self._others[id(split)]

    def _of(self, split: Split, most: int) -> Split:
        if len(split) <= most:
            return split
        chosen = cuts.stratified(split.labels(), most, self.options.seed)
        return dataclasses.replace(split, rows=split.rows[chosen])

    def _shared(self, name: str, split: Split) -> Outputs:
        """From the thread that computes ahead, or computed now."""
        return self._ahead[name].result() if name in self._ahead else self._over(split)

    def _over(self, split: Split) -> Outputs:
        def compute(variables: Any, batch: Any) -> Any:
            if self._stopped:
                raise MissingError("the evaluation was stopped")
            return self._compute(variables, batch)

        return self.subject.over(split, compute)

    @cached_property
    def _compute(self) -> Callable[..., Any]:
        subject = self.subject
        return subject.compiled(lambda variables, batch: subject.outputs(variables, batch["image"]))


def _predictions(outputs: Outputs) -> Predictions:
    return Predictions(
        outputs["index"].astype(np.int64),
        outputs["label"].astype(np.int32),
        outputs["logits"].astype(np.float32),
    )


@dataclass(frozen=True)
class Found:
    """What a section has to say.

    Attributes:
      numbers: plain JSON values.
      material: arrays that pictures are made of, by the picture's name.
    """

    numbers: dict[str, Any]
    material: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
      name: its key in `metrics.json`.
      title: for people.
      run: finds it.
      wanted: whether the options ask for it.
    """

    name: str
    title: str
    run: Callable[[Evaluated], Found | dict[str, Any]]
    wanted: Callable[[Options], bool] = lambda options: True


@dataclass(frozen=True)
class Report:
    """All sections of one evaluation.

    Attributes:
      numbers: of each section, by its name.
      missing: why a section is not there, by its name.
      defects: tracebacks of sections that failed for reasons of our own.
      seconds: that each took.
    """

    numbers: dict[str, dict[str, Any]]
    missing: dict[str, str]
    defects: dict[str, str]
    seconds: dict[str, float]


def run(
    evaluated: Evaluated,
    sections: Sequence[Section],
    shown: Callable[[int, int], None],
    draw: Callable[[str, Found], None] = lambda name, found: None,
) -> Report:
    """Runs the sections that the options ask for, one after the other.

    Args:
      evaluated: what they are about.
      sections: in the order of the report.
      shown: is told how many are done, of how many.
      draw: is given what each found, at once: passes may still be going on beside.
    """
    report = Report({}, {}, {}, {})
    wanted = [section for section in sections if section.wanted(evaluated.options)]
    for done, section in enumerate(wanted):
        shown(done, len(wanted))
        begin = time.perf_counter()
        try:
            found = section.run(evaluated)
            found = found if isinstance(found, Found) else Found(found)
            report.numbers[section.name] = found.numbers
            draw(section.name, found)
        except (MissingError, UserError, ValueError) as error:
            report.missing[section.name] = str(error)
        except Exception as error:  # one that fails must not take the others with it
            report.missing[section.name] = f"{type(error).__name__}: {error}"
            report.defects[section.name] = traceback.format_exc()
        report.seconds[section.name] = time.perf_counter() - begin
    shown(len(wanted), len(wanted))
    return report
