"""Explanations: what in an image a network's answer rests on, and tests of such claims.

from imgrec.evaluation import explanations
found = explanations.explain(subject, images, classes)
found.maps["grad_cam"]   # float32[n, height, width] in [0, 1]
found.left_out           # {"rollout": "it has no attention among places"}
"""

from imgrec.evaluation.explanations.filters import Filters, first_filters
from imgrec.evaluation.explanations.methods import (
    METHODS,
    Explainer,
    Explanations,
    Method,
    explain,
    methods_for,
)
from imgrec.evaluation.explanations.taps import UnsupportedError

__all__ = [
    "METHODS",
    "Explainer",
    "Explanations",
    "Filters",
    "Method",
    "UnsupportedError",
    "explain",
    "first_filters",
    "methods_for",
]
