"""imgrec: image recognition research in JAX, where every number can be trusted."""

__version__ = "0.1.0"
