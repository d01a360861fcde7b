"""Compiles the kernels once for each machine, and registers them with JAX."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import jax
import jaxlib

from imgrec.files import cache_folder

FOLDER = Path(__file__).parent
SOURCES = tuple(FOLDER / f"{name}.cc" for name in ("convolution", "convolution_amx", "batch_norm"))
HEADERS = tuple(FOLDER / f"{name}.h" for name in ("convolution", "parallel", "vector"))
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
COMPILERS = ("c++", "g++", "clang++")
CONVOLUTIONS = tuple(
    f"convolution_{kernel}" for kernel in ("forward", "input_gradient", "kernel_gradient")
)
BATCH_NORMS = ("batch_norm_forward", "batch_norm_gradient")
BFLOAT16 = "_bfloat16"  # ends the names of the kernels of that type
REVISION = 2  # counts the changes of what the kernels compute, to the last bit
SECONDS = 600.0  # it takes twenty, and minutes on a machine that has much else to do


class UnavailableError(Exception):
    """There are no kernels; the message says why."""


@functools.cache
def load() -> Path:
    """Makes the custom calls "imgrec_..." known to XLA, compiling if need be.

    Convolutions of bfloat16 are among them where `multiplies_bfloat16` says so.

    Returns:
      The library, in the folder of what can be had again.

    Raises:
      UnavailableError: no compiler, or it failed.
    """
    library = _compiled()
    try:
        symbols = ctypes.CDLL(str(library))
        names = [*CONVOLUTIONS, *BATCH_NORMS, *(name + BFLOAT16 for name in BATCH_NORMS)]
        if symbols.imgrec_bfloat16():
            names += [name + BFLOAT16 for name in CONVOLUTIONS]
        for name in names:
            target = jax.ffi.pycapsule(getattr(symbols, f"imgrec_{name}"))
            jax.ffi.register_ffi_target(f"imgrec_{name}", target, platform="cpu")
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"{library} cannot be loaded ({error})") from None
    return library


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has a matrix unit for bfloat16 (AMX), and the system lets us use it.

    Raises:
      UnavailableError: as `load`.
    """
    return bool(ctypes.CDLL(str(load())).imgrec_bfloat16())


def _compiled() -> Path:
    compiler = _compiler()
    folder = Path(os.environ.get("IMGREC_NATIVE") or cache_folder() / "native")
    library = folder / f"kernels-{_key(compiler)}.so"
    if library.exists():
        return library
    aside = folder / f"{library.name}.{os.getpid()}"
    command = [compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), *map(str, SOURCES)]
    command += ["-o", str(aside)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
        aside.replace(library)
    except subprocess.CalledProcessError as error:
        first = next((line for line in error.stderr.splitlines() if "error" in line), error.stderr)
        raise UnavailableError(f"{compiler} failed: {first.strip()[:200]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"they could not be compiled into {folder} ({error})") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return library


def _compiler() -> str:
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise UnavailableError(f"there is no C++ compiler ({', '.join(names)})")
    return found


def _key(compiler: str) -> str:
    """Of all that the library depends on; a home that machines share has one for each kind."""
    texts = [path.read_text() for path in (*SOURCES, *HEADERS)]
    parts = [*texts, *FLAGS, compiler, jaxlib.__version__, platform.machine()]
    try:
        described = Path("/proc/cpuinfo").read_text()
        parts += re.findall(r"(?m)^(?:flags|Features)\s*:.*", described)[:1]
    except OSError:
        parts.append(platform.processor())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
