"""What a network looked at: every way of explaining by one name, computed and put on one scale.

`methods_for` says which ways a network supports and why not the others; `explain` gives their
maps. Each way is compiled once for a shape of batch; keep an `Explainer` to explain many.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, Float64, Integer, UInt8

from imgrec.errors import unknown
from imgrec.evaluation.explanations import taps
from imgrec.evaluation.explanations.gradcam import class_activation
from imgrec.evaluation.explanations.integrated_gradients import integrated_gradients
from imgrec.evaluation.explanations.occlusion import occlusion
from imgrec.evaluation.explanations.rollout import attention_tap, rollout
from imgrec.evaluation.explanations.taps import Shapes, UnsupportedError
from imgrec.evaluation.subject import Subject, Variables


@dataclass(frozen=True)
class Method:
    """A way of explaining, for people.

    Attributes:
      title: as the literature calls it.
      signed: whether values below 0 speak against the class; else there are none.
      about: what a high value says, in a sentence.
    """

    title: str
    signed: bool
    about: str


METHODS: Mapping[str, Method] = {
    "grad_cam": Method(
        "Grad-CAM",
        signed=False,
        about="where the last feature maps hold what raises this class's logit on average",
    ),
    "grad_cam_plus_plus": Method(
        "Grad-CAM++",
        signed=False,
        about="the same with more weight on small and on repeated evidence",
    ),
    "hires_cam": Method(
        "HiResCAM",
        signed=False,
        about="where the last feature maps hold what raises this class's logit at that place",
    ),
    "integrated_gradients_black": Method(
        "Integrated gradients from black",
        signed=True,
        about="each pixel's share of the logit's difference to a black image",
    ),
    "integrated_gradients_mean": Method(
        "Integrated gradients from the mean colour",
        signed=True,
        about="each pixel's share of the logit's difference to an image of the mean colour",
    ),
    "occlusion": Method(
        "Occlusion",
        signed=True,
        about="how far the logit falls while a square of the mean colour hides the place",
    ),
    "rollout": Method(
        "Attention rollout",
        signed=False,
        about="how much of each patch reached the head through attention, for whatever class",
    ),
}
"""Every way of explaining, in the order in which they are shown."""

_ACTIVATION = ("grad_cam", "grad_cam_plus_plus", "hires_cam")
_INTEGRATED = ("integrated_gradients_black", "integrated_gradients_mean")

_AT_ONCE = 16  # images
_TOKENS = (
    "The network's tokens tell each other what they hold, block after block. Grad-CAM and its kin "
    "show which of them hold evidence for the class in the end, which need not be where it was "
    "seen; integrated gradients and attention rollout follow it back to the image."
)


@dataclass(frozen=True, eq=False)
class Explanations:
    """The maps of some images by all methods, and how far they can be trusted.

    Attributes:
      maps: by method, within [-1, 1] for signed ones and [0, 1] for others: what was computed,
        divided by the largest absolute value of its image. All zeros where that is 0 or not
        finite.
      scales: by method and image that largest value; in units of the logit for signed methods.
      completeness: by method of integrated gradients, for each image |sum of the attributions -
        logit difference| / |logit difference|; NaN where the difference is 0.
      left_out: why methods have no maps, by name.
      notes: sentences on how these maps are to be read.
    """

    maps: dict[str, Float32[np.ndarray, "images height width"]]
    scales: dict[str, Float64[np.ndarray, "images"]]
    completeness: dict[str, Float64[np.ndarray, "images"]]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """What a report tells beside the pictures, as plain numbers.

        Returns:
          "n"; "methods": for each method "title", "signed", "about", "empty" (how many images
          have a map of zeros) and, of integrated gradients, "completeness_error_median" and
          "complete_within_1_percent", the share of images (None where no image defines an
          error); "left_out": reasons by method; "notes".
        """
        methods = {}
        for name, maps in self.maps.items():
            method = METHODS[name]
            methods[name] = {
                "title": method.title,
                "signed": method.signed,
                "about": method.about,
                "empty": int((~maps.any(axis=(1, 2))).sum()),
            }
            if name in self.completeness:
                errors = self.completeness[name]
                errors = errors[np.isfinite(errors)]
                some = len(errors) > 0
                methods[name] |= {
                    "completeness_error_median": float(np.median(errors)) if some else None,
                    "complete_within_1_percent": float(np.mean(errors <= 0.01)) if some else None,
                }
        n = max((len(maps) for maps in self.maps.values()), default=0)
        return {
            "n": n,
            "methods": methods,
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }


def methods_for(subject: Subject) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the methods that a network supports, and for each of the others why it does not."""
    explainer = Explainer(subject)
    return explainer.methods, explainer.left_out


def explain(
    subject: Subject,
    images: UInt8[np.ndarray, "images height width channels"],
    classes: Integer[np.ndarray, "images"],
    methods: Sequence[str] | None = None,
) -> Explanations:
    """What in each image speaks for its class; see `Explainer`.

    Args:
      subject: the network.
      images: raw, of its shape.
      classes: which logit is explained, one for each image: usually the class predicted, or
        the true one.
      methods: names among `METHODS`; by default all that the network supports.

    Raises:
      UserError: no such method.
      ValueError: images or classes do not fit the network or each other.
    """
    batch_size = max(1, min(len(images), _AT_ONCE))
    return Explainer(subject, methods, batch_size=batch_size)(images, classes)


class Explainer:
    """Explains batch after batch without compiling again.

    Attributes:
      methods: names of those that it computes.
      left_out: of the others that were asked for, the reasons.
      notes: as of `Explanations`.
    """

    def __init__(
        self, subject: Subject, methods: Sequence[str] | None = None, *, batch_size: int = _AT_ONCE
    ):
        """Takes the methods of `explain`; images are computed at most `batch_size` at a time.

        Raises:
          UserError: no such method.
        """
        wanted = tuple(METHODS) if methods is None else tuple(methods)
        for name in wanted:
            if name not in METHODS:
                raise unknown("way of explaining", name, METHODS)
        self._subject = subject
        self._batch_size = batch_size
        shapes = taps.intermediates(subject, batch_size)
        self._programs, self.left_out = _programs(subject, shapes, wanted)
        self.methods = tuple(
            name for name in METHODS if name in wanted and name not in self.left_out
        )
        tokens = any(name == "encoded" or name.endswith("/attention") for name in shapes)
        self.notes = (_TOKENS,) if tokens and set(_ACTIVATION) & set(self.methods) else ()

    def __call__(
        self,
        images: UInt8[np.ndarray, "images height width channels"],
        classes: Integer[np.ndarray, "images"],
        variables: Variables | None = None,
    ) -> Explanations:
        """The maps of these images; arguments and errors as of `explain`.

        `variables` are others for the same network, by default its own.
        """
        self._check(images, classes)
        variables = self._subject.variables if variables is None else variables
        parts: list[dict[str, Any]] = []
        size = min(self._batch_size, len(images))
        for start in range(0, len(images), max(size, 1)):
            # The last batch is filled up, so that one shape is compiled.
            chosen = np.arange(start, start + size).clip(max=len(images) - 1)
            computed: dict[str, Any] = {}
            for program in self._programs:
                computed |= program(variables, images[chosen], classes[chosen].astype(np.int32))
            parts.append(jax.device_get(computed))

        maps, scales, completeness = {}, {}, {}
        for name in self.methods:
            raw, *errors = (
                np.concatenate(rows)[: len(images)]
                for rows in zip(*(part[name] for part in parts), strict=True)
            )
            maps[name], scales[name] = _scaled(raw.astype(np.float32))
            if errors:
                error = errors[0].astype(np.float64)
                completeness[name] = np.where(np.isfinite(error), error, np.nan)
        return Explanations(maps, scales, completeness, dict(self.left_out), self.notes)

    def _check(self, images: np.ndarray, classes: np.ndarray) -> None:
        expected = self._subject.image_shape
        if len(images) == 0 or images.shape[1:] != expected or len(classes) != len(images):
            raise ValueError(
                f"Images of shape {images.shape} and {len(classes)} classes cannot be explained; "
                f"expected [n, {', '.join(map(str, expected))}] with n at least 1, and n classes."
            )
        names = self._subject.class_names
        if classes.min() < 0 or classes.max() >= len(names):
            raise ValueError(
                f"Classes from {classes.min()} to {classes.max()} are not all of the network's, "
                f"which are 0 to {len(names) - 1}."
            )


Program = Callable[[Variables, Any, Any], Mapping[str, tuple[Array, ...]]]
"""(variables, images, classes) -> by method the maps, and what else is known of each image."""


def _programs(
    subject: Subject, shapes: Shapes, wanted: Sequence[str]
) -> tuple[list[Program], dict[str, str]]:
    """What computes the methods, some several at once, and why others cannot be."""
    programs, reasons = [], {}
    for names, build in _BUILDERS:
        asked = tuple(name for name in names if name in wanted)
        if not asked:
            continue
        try:
            programs.append(build(subject, shapes, asked))
        except UnsupportedError as reason:
            reasons.update(dict.fromkeys(asked, str(reason)))
    return programs, reasons


def _activation(subject: Subject, shapes: Shapes, names: tuple[str, ...]) -> Program:
    tap = taps.last_map(subject, shapes)

    @jax.jit
    def program(variables: Variables, images: Array, classes: Array) -> Any:
        maps = class_activation(subject, tap, variables, images, classes)
        return {name: (maps[name],) for name in names}

    return program


def _integrated(subject: Subject, shapes: Shapes, names: tuple[str, ...]) -> Program:
    colours = {
        "integrated_gradients_black": (0.0,) * len(subject.mean),
        "integrated_gradients_mean": subject.mean,
    }
    return integrated_gradients(subject, {name: colours[name] for name in names})


def _occlusion(subject: Subject, shapes: Shapes, names: tuple[str, ...]) -> Program:
    @jax.jit
    def program(variables: Variables, images: Array, classes: Array) -> Any:
        return {"occlusion": (occlusion(subject, variables, images, classes),)}

    return program


def _rollout(subject: Subject, shapes: Shapes, names: tuple[str, ...]) -> Program:
    tap = attention_tap(subject, shapes)

    @jax.jit
    def program(variables: Variables, images: Array, classes: Array) -> Any:
        return {"rollout": (rollout(subject, tap, variables, images),)}

    return program


_BUILDERS: tuple[tuple[tuple[str, ...], Callable[..., Program]], ...] = (
    (_ACTIVATION, _activation),
    (_INTEGRATED, _integrated),
    (("occlusion",), _occlusion),
    (("rollout",), _rollout),
)


def _scaled(
    raw: Float32[np.ndarray, "images height width"],
) -> tuple[Float32[np.ndarray, "images height width"], Float64[np.ndarray, "images"]]:
    """Maps divided by their largest absolute value, and these values."""
    largest = np.abs(raw).max(axis=(1, 2)).astype(np.float64)
    usable = np.isfinite(largest) & (largest > 0)
    divisor = np.where(usable, largest, 1)[:, None, None].astype(np.float32)
    return np.where(usable[:, None, None], raw / divisor, np.float32(0)), largest
