"""Runs the 64,000-step recipe of He et al. 2015 in pieces: stopped by SIGTERM, and resumed.

    python scripts/stop_and_resume.py --data_root=FOLDER --folder=runs/paper --stops 60 120

A machine with two cores needs two days for the whole of it; what is shown here is that its
steps run, that a signal ends them with exit code 75 and a checkpoint, and that the same command
goes on with the next step. Give larger --stops to go further in the same folder. Writes
`results/cifar10_resnet20_paper_pieces.json`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from imgrec import claims

ROOT = Path(__file__).parents[1]
LOG_EVERY = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--folder", default=str(claims.root() / "runs" / "cifar10_resnet_paper"))
    parser.add_argument("--stops", type=int, nargs="+", default=[60, 120])
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    environment = dict(os.environ)
    if arguments.data_root:
        environment["IMGREC_DATA"] = arguments.data_root
    command = [sys.executable, "-m", "imgrec.main", "--config=configs/cifar10_resnet.py"]
    command += [f"--config.log.every={LOG_EVERY}st", f"--workdir={folder}"]
    codes, stopped_at = [], []
    for stop in arguments.stops:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and _last_step(folder) < stop:
            time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        codes.append(process.wait())
        stopped_at.append(_latest_checkpoint(folder))
        print(f"exit code {codes[-1]}, checkpoint of step {stopped_at[-1]}", flush=True)

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "train/loss" in line]
    steps = [line["step"] for line in logged]
    config = json.loads((folder / "config.json").read_text())
    launch = json.loads((folder / "launches.jsonl").read_text().splitlines()[-1])
    gapless = steps == list(range(LOG_EVERY, steps[-1] + 1, LOG_EVERY))
    result = {
        "claim": "the 64k-step recipe of He et al. 2015 runs, stops and goes on where it stopped",
        "metric": "steps run",
        "values": [stopped_at[-1]],
        "target": arguments.stops[-1],
        "reached": gapless and codes == [75] * len(codes) and stopped_at[-1] >= arguments.stops[-1],
        "n": len(codes),
        "rule": "target",
        "exit_codes": codes,
        "checkpoints": stopped_at,
        "log_lines_without_gap": gapless,
        "loss": {str(line["step"]): line["train/loss"] for line in logged},
        "images_per_second": [line["time/images_per_second"] for line in logged],
        "seeds": [config["experiment"]["seed"]],
        "device": f"{launch['processor']}, {launch['cores']} cores, {launch['backend']}",
        "versions": launch["packages"],
        "git_revision": launch["git_revision"],
        "git_dirty": launch["git_dirty"],
        "command": "python scripts/stop_and_resume.py --data_root=FOLDER",
        "fingerprint": config["fingerprint"],
        "config": config["experiment"],
    }
    path = claims.root() / "results" / "cifar10_resnet20_paper_pieces.json"
    claims.write(path, result)
    print(path)
    return 0


def _last_step(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def _latest_checkpoint(folder: Path) -> int:
    latest = folder / "checkpoints" / "latest"
    return max((int(path.name) for path in latest.glob("*") if path.name.isdigit()), default=0)


if __name__ == "__main__":
    sys.exit(main())
