"""How a model fares on corrupted images, made on the device and never kept.

The protocol of Hendrycks and Dietterich (2019, arXiv:1903.12261, section 4), with calibration
under corruption beside accuracy (Ovadia et al. 2019, arXiv:1906.02530). What the numbers are is
in `imgrec.evaluation.robustness.corruption_table`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Array, Int, UInt8

from imgrec import corruptions
from imgrec.data import Split
from imgrec.errors import UserError, unknown
from imgrec.evaluation.robustness.conditions import Change, Progress, answers, unchanged
from imgrec.evaluation.robustness.corruption_table import table
from imgrec.evaluation.subject import Subject


def corruption_benchmark(
    subject: Subject,
    split: Split,
    *,
    profile: str = "",
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    seed: int = 0,
    reference: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """A split's images under every kind of corruption at every severity.

    Args:
      subject: the model.
      split: what is corrupted, usually test; each image in its own way, by its index.
      profile: in `corruptions.PROFILES`; "" for the one that fits the size of the images.
      kinds: of the profile; None for those that its publishers test on.
      severities: None for all of the profile.
      seed: of the corruptions and of the resamples.
      reference: what this function returned for a stated run, under the same profile, to which
        mean corruption errors are relative.
      progress: told of every batch under every condition.

    Returns:
      seed, and what `corruption_table.table` returns.

    Raises:
      UserError: no such profile, kind or severity.
    """
    profile = profile or corruptions.profile_for(subject.image_shape)
    if profile not in corruptions.PROFILES:
        raise unknown("profile of corruptions", profile, corruptions.PROFILES)
    kinds = tuple(corruptions.published(profile) if kinds is None else kinds)
    severities = tuple(sorted(severities or corruptions.severities(profile)))
    _check(profile, kinds, severities)
    changes: list[Change] = [
        unchanged,
        *(functools.partial(_corrupted, profile, kind, seed) for kind in kinds),
    ]
    cells = [(row + 1, severity) for row in range(len(kinds)) for severity in severities]
    found = answers(subject, split, changes, [(0, 1), *cells], progress=progress)
    return {"seed": seed} | table(
        found.columns(slice(1, None)),
        kinds,
        severities,
        clean=found.columns(slice(1)),
        profile=profile,
        reference=reference,
        seed=seed,
    )


def _check(profile: str, kinds: Sequence[str], severities: Sequence[int]) -> None:
    for kind in kinds:
        if kind not in corruptions.names(profile):
            raise unknown(f"corruption of {profile}", kind, corruptions.names(profile))
    possible = corruptions.severities(profile)
    for severity in severities:
        if severity not in possible:
            raise UserError(
                f"Corruptions of {profile} have no severity {severity}; it can be "
                f"{', '.join(map(str, possible))}."
            )
    for what, given in {"kind": kinds, "severity": severities}.items():
        if not given or len(set(given)) < len(given):
            raise UserError(f"Name at least one {what} of corruption, and none twice: {given}.")


def _corrupted(
    profile: str,
    kind: str,
    seed: int,
    images: UInt8[Array, "batch height width channels"],
    index: Int[Array, " batch"],
    severity: Int[Array, ""],
) -> UInt8[Array, "batch height width channels"]:
    return corruptions.corrupt(
        images, index, profile=profile, kind=kind, severity=severity, seed=seed
    )
