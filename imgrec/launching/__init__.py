"""Many runs through an engine that exists: one after the other here, by SLURM or by Ray."""

from imgrec.launching.engines import ENGINES, check, run_all
from imgrec.launching.runs import Outcome, Run, training_run

__all__ = ["ENGINES", "Outcome", "Run", "check", "run_all", "training_run"]
