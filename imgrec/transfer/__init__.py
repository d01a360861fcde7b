"""Weights in and out: files of other projects read without their frameworks, and written."""
