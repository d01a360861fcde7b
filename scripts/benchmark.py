"""What the benchmarks share, which is what `python -m imgrec.bench` is made of."""

from imgrec.benchmarking.turns import ROOT, ratio, take_turns, write

__all__ = ["ROOT", "ratio", "take_turns", "write"]
