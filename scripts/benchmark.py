"""What the benchmarks share, which is what `python -m imgrec.bench` is made of."""

from imgrec import claims
from imgrec.benchmarking.turns import ROOT, ratio, take_turns, write

RESULTS = claims.root() / "results"

__all__ = ["RESULTS", "ROOT", "ratio", "take_turns", "write"]
