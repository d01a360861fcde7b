"""Packages that classical methods work with: imported when they are needed, or asked for kindly."""

import importlib
import importlib.metadata
from types import ModuleType

from imgrec.errors import UserError

# By the name of the module, the distribution that is to be installed for it.
_DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skops": "skops",
}


def require(module: str) -> ModuleType:
    """The module, imported.

    Raises:
      UserError: its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _DISTRIBUTIONS[module.partition(".")[0]]
        raise UserError(
            f"This classical method needs {package}, which cannot be imported ({error}). Install "
            "the extra that brings it: pip install 'imgrec[classical]'."
        ) from None


def versions() -> dict[str, str]:
    """Of what results depend on, by module."""
    return {name: require(name).__version__ for name in _DISTRIBUTIONS}
