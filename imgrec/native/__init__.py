"""Kernels in C++ for CPUs, where XLA's are far from what the processor can do.

They are compiled when they are first asked for, by the C++ compiler at hand, and kept; without one
nothing is lost but speed. Nobody has to know them: `imgrec.models.lowering` uses them while
`convolution.used` is entered.
"""
