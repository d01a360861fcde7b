"""Measurements of speed, of this project alone and beside others. Nothing imports it but its verb.

The contestants of other frameworks (`torch_*`, `flax_*`) run in processes of their own, and
import nothing of this project that needs more than Python.
"""
