"""Peak memory while a training set ten times larger than the limit streams by.

    python scripts/bench_memory.py

Prepares a set of noise JPEGs in a temporary folder (about 5.2 GB, deleted at the end), then reads
all of it once through `imgrec.data` in a fresh process: ArrayRecord, decoding, Inception crops to
224x224, shuffled batches of 64, as training does. The process's peak resident set counts all it
has, interpreter and libraries included. Writes `results/bench_memory.json`.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import benchmark
import numpy as np
from PIL import Image

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import pipeline, preparing
from imgrec.data.dataset import Info, Official

COMMAND = "python scripts/bench_memory.py"
SIDE = 768


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit_mb", type=int, default=512)
    parser.add_argument("--folder", default="", help="where there is room; default: the system's")
    parser.add_argument("--out", default=str(benchmark.RESULTS / "bench_memory.json"))
    parser.add_argument("--read", default="", help=argparse.SUPPRESS)  # the fresh process's part
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read)))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder or None) as folder:
        wanted = 10 * arguments.limit_mb * 2**20
        count = -(-wanted // len(noise_jpeg(0)))
        print(f"writing {count:,} images, {wanted / 1e9:.1f} GB", flush=True)
        parts = NoiseImages(count), NoiseImages(64)
        info = Info("noise", 2, ("even", "odd"), (0, 0, 3), (0.5,) * 3, (0.25,) * 3, "noise")
        preparing.prepare(Official(*parts, info), Path(folder), preparing.Settings(), COMMAND)
        command = [sys.executable, __file__, f"--read={folder}"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    peak = found["peak_bytes"] / 2**20
    result = {
        "claim": "peak memory of a process that streams a set ten times larger than its limit",
        "metric": f"MiB at most, limit {arguments.limit_mb}, of a set of {size / 2**20:,.0f} MiB;",
        "values": [peak],
        "target": arguments.limit_mb,
        "reached": peak < arguments.limit_mb and found["images"] == count,
        "n": found["images"],
        "before_reading_mib": found["before_bytes"] / 2**20,
        "images_per_second": found["images"] / found["seconds"],
        "set_bytes": size,
    }
    print(f"peak {peak:,.0f} MiB of {arguments.limit_mb}, {found['images']:,} images")
    benchmark.write(result, arguments.out, COMMAND)
    return 0


class NoiseImages:
    """JPEG files made when they are asked for, each from its row: nothing compresses them."""

    def __init__(self, count: int):
        """Makes nothing yet."""
        self._count = count

    def __len__(self) -> int:
        return self._count

    def encoded(self, row: int) -> bytes:
        """The file of a row."""
        # A few pictures with the row's number behind them: different files, made fast.
        return noise_jpeg(row % 16) + row.to_bytes(8, "little")

    def labels(self) -> np.ndarray:
        """Even and odd rows."""
        return np.arange(self._count, dtype=np.int32) % 2

    def columns(self) -> Mapping[str, np.ndarray]:
        """None."""
        return {}

    def where(self, row: int) -> str:
        """The row."""
        return f"row {row}"


_made: dict[int, bytes] = {}


def noise_jpeg(seed: int) -> bytes:
    if seed not in _made:
        pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        _made[seed] = stream.getvalue()
    return _made[seed]


def read(folder: str) -> dict[str, float]:
    """One epoch in this process; its peak memory in bytes."""
    before = _peak()
    config = DataConfig(
        dataset=f"prepared:{folder}",
        image_size=224,
        crop="inception",
        validation="0",
        batch_size=64,
    )
    split = data.load(config).train
    stream = pipeline.train_batches(split, batch_size=config.batch_size, seed=0, threads=2)
    begin, seen = time.perf_counter(), set()
    while len(seen) < len(split):
        seen.update(next(stream)["index"].tolist())
    seconds = time.perf_counter() - begin
    return {
        "before_bytes": before,
        "peak_bytes": _peak(),
        "images": len(seen),
        "seconds": seconds,
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
