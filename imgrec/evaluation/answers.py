"""What a model answers to image files: likeliest classes, how sure, or that it knows none of them.

What makes an answer honest is measured on validation images and kept beside the run: the
temperature that its confidence is divided by, the size of its prediction sets, and how strange an
image may look before the model should say that it is none of the known classes.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Integer, UInt8

from imgrec.data.decode import BrokenImageError
from imgrec.data.view import View, decode
from imgrec.errors import UserError
from imgrec.evaluation.confidence import conformal
from imgrec.evaluation.confidence.calibration import finite_examples, fit_temperature, softmax
from imgrec.evaluation.subject import Subject
from imgrec.evaluation.unknown.ood_scores import energy
from imgrec.files import write_text
from imgrec.native import convolution as native

NAME = "calibration.json"
KEPT = 0.95  # of validation images, by the threshold of the score
ALPHA = 0.05  # of prediction sets
_THREADS = 4


@dataclass(frozen=True)
class Calibration:
    """What was fitted on validation images.

    Attributes:
      step: of the variables that it is for.
      input: digest of how images were prepared.
      n: validation images.
      temperature: that logits are divided by.
      least_energy: below this energy score (Liu et al. 2020) an image is stranger than all but
        5 % of the validation images.
      set_threshold: least probability, after the temperature, that puts a class into the 95 %
        prediction set (LAC); None where the validation images are too few for it.
    """

    step: int
    input: str
    n: int
    temperature: float
    least_energy: float
    set_threshold: float | None


def fit(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    *,
    step: int,
    input_digest: str,
) -> Calibration:
    """Fits everything to validation predictions.

    Temperature and threshold of the sets share the examples; with one number fitted to all of
    them, what that takes from the promise is far below what chance does.

    Raises:
      ValueError: there are no examples with finite logits.
    """
    (logits, labels), _ = finite_examples(logits, labels, "validation examples")
    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits, temperature)
    scores = 1 - probabilities[np.arange(len(labels)), labels]
    quantile = conformal.quantile(scores, ALPHA)
    return Calibration(
        step=step,
        input=input_digest,
        n=len(labels),
        temperature=temperature,
        least_energy=float(np.quantile(energy(logits), 1 - KEPT)),
        set_threshold=float(1 - quantile) if np.isfinite(quantile) else None,
    )


def save(calibration: Calibration, folder: Path) -> None:
    """Writes `calibration.json` into a run folder."""
    write_text(folder / NAME, json.dumps(dataclasses.asdict(calibration), indent=2) + "\n")


def load(folder: Path, *, step: int, input_digest: str) -> Calibration | None:
    """What `save` wrote; None where nothing was fitted yet.

    Raises:
      UserError: it is damaged, or was fitted to other variables or otherwise prepared images.
    """
    path = folder / NAME
    again = f"Evaluate the run again: python -m imgrec.evaluate --workdir={folder}"
    if not path.exists():
        return None
    try:
        found = Calibration(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}). {again}") from None
    if (found.step, found.input) != (step, input_digest):
        what = "variables of another step" if found.step != step else "otherwise prepared images"
        raise UserError(f"{path} was fitted to {what}, so its confidences would be wrong. {again}")
    return found


@dataclass(frozen=True)
class Answer:
    """To one image file.

    Attributes:
      path: of the file.
      classes: names of the likeliest, falling; () where the file could not be read.
      probabilities: of these.
      known: False where the model should rather say "none of the known classes".
      why_not: the reason of that, in words; "" otherwise.
      prediction_set: classes that hold the truth in 95 % of cases; None where not calibrated.
      error: why the file could not be read; "" where it could.
    """

    path: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    known: bool = True
    why_not: str = ""
    prediction_set: tuple[str, ...] | None = None
    error: str = ""


def answers(
    subject: Subject,
    view: View,
    paths: Sequence[Path],
    *,
    calibration: Calibration | None,
    top_k: int,
    reject_below: float = 0.0,
    reject_unknown: bool = False,
    seen: Callable[[Path, UInt8[np.ndarray, "height width channels"], int], None] | None = None,
) -> Iterator[Answer]:
    """Answers to image files, in their order, computed in batches as they are asked for.

    Args:
      subject: the model.
      view: how a file becomes its input.
      paths: of the files.
      calibration: of its confidence; without it probabilities are the softmax's.
      top_k: classes of an answer, at most all.
      reject_below: least probability of the likeliest class for it to be an answer.
      reject_unknown: whether images that look strange are rejected; needs the calibration.
      seen: is given each image that could be read, as the network sees it, and its likeliest
        class.
    """
    logits_of = subject.compiled(lambda variables, images: subject.logits(variables, images))
    size = _batch_size(len(paths), subject.batch_size)
    with ThreadPoolExecutor(_THREADS) as pool:
        batches = [paths[i : i + size] for i in range(0, len(paths), size)]
        reading = [pool.submit(_read, path, view, subject.image_shape) for path in batches[0]]
        for i, batch in enumerate(batches):
            images = [_image(future) for future in reading]
            following = batches[i + 1] if i + 1 < len(batches) else []
            # The next files are decoded while the device computes.
            reading = [pool.submit(_read, path, view, subject.image_shape) for path in following]
            whole = [image for image in images if isinstance(image, np.ndarray)]
            logits = np.zeros((0, len(subject.class_names)), np.float32)
            if whole:
                padded = np.zeros((size, *subject.image_shape), np.uint8)
                padded[: len(whole)] = whole
                placed = subject.put({"image": padded})["image"]
                with native.used(subject.native_convolutions):
                    found = logits_of(subject.variables, placed)
                logits = np.asarray(jax.device_get(found), np.float32)[: len(whole)]
            rows = iter(logits)
            for path, image in zip(batch, images, strict=True):
                if not isinstance(image, np.ndarray):
                    yield Answer(str(path), error=image)
                    continue
                row = next(rows)
                if seen is not None:
                    seen(path, image, int(row.argmax()))
                yield answer(
                    str(path),
                    row,
                    subject.class_names,
                    calibration=calibration,
                    top_k=top_k,
                    reject_below=reject_below,
                    reject_unknown=reject_unknown,
                )


def answer(
    path: str,
    logits: Float[np.ndarray, " classes"],
    class_names: Sequence[str],
    *,
    calibration: Calibration | None,
    top_k: int,
    reject_below: float,
    reject_unknown: bool,
) -> Answer:
    """The answer that one image's logits make."""
    if not np.isfinite(logits).all():
        return Answer(path, known=False, why_not="the model's output is not a number")
    probabilities = softmax(logits[None], calibration.temperature if calibration else 1.0)[0]
    ranked = np.argsort(-probabilities, kind="stable")[:top_k]
    why_not = ""
    if probabilities[ranked[0]] < reject_below:
        why_not = f"confidence below {reject_below:g}"
    elif reject_unknown and calibration and energy(logits[None])[0] < calibration.least_energy:
        why_not = f"stranger than {KEPT:.0%} of the validation images"
    held = None
    if calibration is not None and calibration.set_threshold is not None:
        inside = probabilities >= calibration.set_threshold
        inside[ranked[0]] = True
        held = tuple(class_names[c] for c in np.argsort(-probabilities, kind="stable") if inside[c])
    return Answer(
        path,
        tuple(class_names[c] for c in ranked),
        tuple(float(p) for p in probabilities[ranked]),
        known=not why_not,
        why_not=why_not,
        prediction_set=held,
    )


def _batch_size(files: int, most: int) -> int:
    """The subject's, or for few files the least part of it that holds them all."""
    size = most
    while size % 2 == 0 and size // 2 >= files and (size // 2) % jax.device_count() == 0:
        size //= 2
    return size


def _read(
    path: Path, view: View, shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "height width channels"] | str:
    """The image as the network sees it, or why it cannot be read."""
    try:
        image = decode(path.read_bytes(), view)
    except OSError as error:
        return error.strerror or str(error)
    except BrokenImageError as error:
        return str(error)
    if image.shape != shape:
        return f"it is {image.shape[1]}x{image.shape[0]}, and the model takes {shape[1]}x{shape[0]}"
    return image


def _image(future: Future[Any]) -> UInt8[np.ndarray, "height width channels"] | str:
    return future.result()
