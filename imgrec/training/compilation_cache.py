"""Compiled programs are kept on disk, so that the next start of the same run compiles nothing.

The cache is JAX's own, and its key holds the program, the options, XLA's flags and the
version. What is decided here: where it lies, that it stays small, and that a disk which is
full or takes no file costs the cache and never the run.
"""

import contextlib
import hashlib
import os
import platform
import re
from pathlib import Path

import jax

from imgrec.files import cache_folder, writable_bytes

FOLDER = "JAX_COMPILATION_CACHE_DIR"
SWITCH = "JAX_ENABLE_COMPILATION_CACHE"
THRESHOLD = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

LIMIT = 2 * 2**30  # bytes that programs may take, the least recently used going first
_MIN_FREE = 256 * 2**20  # a disk with less room is better left alone
# A start compiles dozens of small programs (initialisation, evaluation, logging); a file each
# is cheaper than all of them once more.
_MIN_SECONDS = 0.1


def configure() -> str:
    """Turns the cache on, unless the environment decides otherwise; says what was decided.

    To be called before anything compiles. The folder is $IMGREC_CACHE/compiled, else
    ~/.cache/imgrec/compiled; JAX's own variables go before it, and
    JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.

    Returns:
      One line for the log.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return f"compiled programs: not kept ({SWITCH} is off)"
    if os.environ.get(FOLDER):
        return f"compiled programs: kept in {os.environ[FOLDER]} ({FOLDER})"
    folder = _folder()
    try:
        free = writable_bytes(folder)
    except OSError as error:
        return (
            f"compiled programs: not kept, since {folder} cannot be written ({error.strerror}); "
            f"{FOLDER} names another folder"
        )
    free += prune(folder, LIMIT)
    if free < _MIN_FREE:
        return (
            f"compiled programs: not kept, since {folder} is on a disk with {free / 1e6:,.0f} MB "
            f"left; {FOLDER} names another folder"
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if THRESHOLD not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
    return f"compiled programs: kept in {folder} ({SWITCH}=false to do without)"


def prune(folder: Path, limit: int) -> int:
    """Deletes the programs unused for longest until the rest take at most `limit` bytes.

    JAX can do so itself, but needs a package for it that it does not bring.

    Returns:
      The bytes that were freed.
    """
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may prune as well
            stat = path.stat()
            found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    excess = sum(size for _, size, _ in found) - limit
    freed = 0
    for _, size, path in sorted(found):
        if freed >= excess:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            freed += size
    return freed


def _folder() -> Path:
    """Of this kind of processor: homes are shared between machines, and a program that was

    compiled for one machine's instructions may be a crash on another.
    """
    return cache_folder() / "compiled" / f"{platform.machine()}-{_instructions()}"


def _instructions() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = platform.processor()
    # "flags" on x86, "Features" on ARM: the same on every core.
    found = re.search(r"^(flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    names = sorted(set(found[2].split())) if found else [text]
    return hashlib.blake2b(" ".join(names).encode(), digest_size=6).hexdigest()
