"""Times the exact nearest neighbours on the devices beside scikit-learn's brute force, on MNIST.

    python scripts/bench_neighbours.py --data_root=FOLDER

Both search 3 neighbours of the same test images among the same training images, pixels as
float32 on [0, 1], in turns; what is compiled is compiled before. Both must find equal distances.
Writes `results/bench_neighbours.json`: the ratio of each turn, scikit-learn's seconds over ours.
"""

import argparse
import json
import os
import statistics
import sys
import time

import jax
import numpy as np
from sklearn.neighbors import NearestNeighbors

from imgrec import claims, data
from imgrec.classical import descriptors, neighbours
from imgrec.config import DataConfig
from imgrec.training import run_folder

_K = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--queries", type=int, default=2048, help="test images")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    found = data.load(DataConfig(dataset="mnist", root=arguments.data_root, validation="0"))
    known = descriptors.pixels(found.train.gather(np.arange(len(found.train)))["image"])
    queries = descriptors.pixels(found.test.gather(np.arange(arguments.queries))["image"])
    theirs = NearestNeighbors(n_neighbors=_K, algorithm="brute", n_jobs=-1).fit(known)
    neighbours.nearest(known, queries, _K)
    seconds: dict[str, list[float]] = {"imgrec": [], "scikit-learn": []}
    for _ in range(arguments.turns):
        begin = time.perf_counter()
        ours, _rows = neighbours.nearest(known, queries, _K)
        seconds["imgrec"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        expected, _rows = theirs.kneighbors(queries)
        seconds["scikit-learn"].append(time.perf_counter() - begin)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    ratios = [b / a for a, b in zip(seconds["imgrec"], seconds["scikit-learn"], strict=True)]
    result = {
        "claim": "exact neighbours of MNIST on the devices, beside scikit-learn's brute force",
        "metric": "speed, as a multiple of scikit-learn's",
        "value": statistics.median(ratios),
        "values": ratios,
        "median": statistics.median(ratios),
        "n": arguments.queries,
        "target": 1.0,
        "reached": statistics.median(ratios) > 1.0,
        "seconds": seconds,
        "device": f"{run_folder.processor()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "versions": run_folder.versions(),
        "git_revision": run_folder.git("rev-parse", "HEAD"),
        "git_dirty": bool(run_folder.git("status", "--porcelain")),
        "command": "python scripts/bench_neighbours.py --data_root=FOLDER",
    }
    print(json.dumps({name: result[name] for name in ("values", "median", "seconds")}, indent=2))
    claims.write(claims.root() / "results" / "bench_neighbours.json", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
