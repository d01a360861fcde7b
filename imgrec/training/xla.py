"""XLA's flags for the CPU, set before the backend starts.

Measured on two cores with jaxlib 0.10.2: handing element-wise work, products and reductions
to XLA's CPU kernel library makes training of nets of dense convolutions 1.5 times faster, and
that of transformers and of nets of depthwise convolutions slower. The flag changes the last
bits of results, so the run folder records it.
"""

import os

import jaxlib

from imgrec import models
from imgrec.config import Experiment

FUSION_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
FUSION_KINDS = ("ELTWISE", "DOT", "REDUCE")
# XLA aborts the process on a flag it does not know, and this one is experimental.
KNOWN_TO = "0.10."


def configure(experiment: Experiment) -> str:
    """Sets XLA_FLAGS as `train.cpu_fusion` asks, and says what was decided, in one line.

    To be called before anything computes; a flag that the user has set already stays.

    Raises:
      UserError: an unknown model.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    wanted = experiment.train.cpu_fusion
    if wanted == "auto":
        dense = models.describe(experiment.model.name).dense_convolutions
        wanted = "on" if dense else "off"
    if FUSION_FLAG in flags:
        return f"CPU library fusion: as XLA_FLAGS says ({flags})"
    if wanted == "off":
        return "CPU library fusion: off (--config.train.cpu_fusion=on to try it)"
    if not jaxlib.__version__.startswith(KNOWN_TO):
        return f"CPU library fusion: off, since jaxlib {jaxlib.__version__} is not {KNOWN_TO}x"
    kinds = ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in FUSION_KINDS)
    os.environ["XLA_FLAGS"] = f"{flags} {FUSION_FLAG}={kinds}".strip()
    return "CPU library fusion: on (--config.train.cpu_fusion=off to do without)"
