"""How long the training step waits for data: seconds of waiting over seconds of the wall clock.

    python scripts/data_wait.py --data_root=FOLDER

Runs configs/cifar10_resnet.py for some steps in a temporary folder, once with batches from the
host and once with the training set on the device, and reads `seconds.json`, where the loop
accounts for its time. Compilation and the evaluations are not counted into the wall time, which
would only make the share smaller. Writes `results/data_wait.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import benchmark

COMMAND = "python scripts/data_wait.py --data_root=FOLDER"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--out", default=str(benchmark.RESULTS / "data_wait.json"))
    arguments = parser.parse_args()
    root = {"IMGREC_DATA": arguments.data_root} if arguments.data_root else {}
    shares, seconds = {}, {}
    for resident in ("off", "on"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [
                    *(sys.executable, "-m", "imgrec.main", "--config=configs/cifar10_resnet.py"),
                    f"--config.data.resident={resident}",
                    f"--config.train.duration={arguments.steps}st",
                    "--config.log.tensorboard=False",
                    f"--workdir={folder}/run",
                ],
                cwd=benchmark.ROOT,
                env={**os.environ, **root},
                check=True,
            )
            spent = json.loads((Path(folder) / "run" / "seconds.json").read_text())
        wall = spent["data wait"] + spent["step"]
        shares[resident], seconds[resident] = spent["data wait"] / wall, spent
    result = {
        "claim": "share of the training time that CIFAR-10 ResNet-20 waits for data, from the host",
        "metric": "share",
        "values": [shares["off"]],
        "median": shares["off"],
        "resident": shares["on"],
        "target": 0.02,
        "reached": max(shares.values()) < 0.02,
        "n": arguments.steps,
        "seconds": seconds,
    }
    print(f"waiting: {shares['off']:.2%} from the host, {shares['on']:.2%} resident")
    benchmark.write(result, arguments.out, COMMAND)
    return 0


if __name__ == "__main__":
    sys.exit(main())
