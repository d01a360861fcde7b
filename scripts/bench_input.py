"""Delivered images/s for CIFAR-10-size images with crop, flip and normalisation, beside peers.

    pip install -e '.[bench]'
    python scripts/bench_input.py --data_root=FOLDER

Four contestants deliver normalised float32 batches of the same 50,000 images, shuffled, padded
by 4 pixels and cropped, mirrored with probability one half: our resident path, our Grain path
(its augmentation on the device included), a torch DataLoader with transforms on Pillow images as
torchvision has them, and tf.data with the same operations as TensorFlow ops; the peers with two
workers or parallel calls. They take turns in one process. Writes `results/bench_input.json`.
"""

import argparse
import os
import random
import statistics
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import benchmark
import numpy as np
import tensorflow as tf
import torch
from PIL import Image, ImageOps

from imgrec import data
from imgrec.benchmarking.passes import deliver, prepared
from imgrec.config import AugmentConfig, DataConfig, Experiment, ModelConfig, TrainConfig

PEER_WORKERS = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=100, help="of each contestant in a round")
    parser.add_argument("--out", default=str(benchmark.RESULTS / "bench_input.json"))
    arguments = parser.parse_args()
    if arguments.data_root:
        os.environ["IMGREC_DATA"] = arguments.data_root
    batch_size, batches = arguments.batch_size, arguments.batches
    experiment = Experiment(
        data=DataConfig(dataset="cifar10", batch_size=batch_size, validation="0"),
        augment=AugmentConfig(pad_crop=4, flip=True),
        model=ModelConfig(name="resnet20"),
        train=TrainConfig(duration="1ep"),
    )
    dataset = data.load(experiment.data)
    split = dataset.train
    images, labels = split.source.images, split.labels()
    mean, std = (np.array(v, np.float32) for v in (dataset.info.mean, dataset.info.std))

    # The resident path has as little to do a batch that one call is timed over many.
    contestants = {
        "resident": deliver(prepared(experiment, "on"), 10 * batches, batch_size),
        "grain": deliver(prepared(experiment, "off"), 2 * batches, batch_size),
        "torch": deliver(torch_batches(images, labels, mean, std, batch_size), batches, batch_size),
        "tf.data": deliver(tf_batches(images, labels, mean, std, batch_size), batches, batch_size),
    }
    rates = benchmark.take_turns(contestants, arguments.rounds)
    asked = {
        "resident over torch": ("resident", "torch", 10.0),
        "grain over torch": ("grain", "torch", 2.0),
        "resident over tf.data": ("resident", "tf.data", 1.0),
        "grain over tf.data": ("grain", "tf.data", 1.0),
    }
    ratios = {name: benchmark.ratio(rates, a, b) for name, (a, b, _) in asked.items()}
    for name, (_, _, target) in asked.items():
        print(f"{name}: {ratios[name]:.2f} (asked {target:g})")
    result = {
        "claim": "delivered CIFAR-10-size images/s, resident path over a torch DataLoader",
        "metric": "ratio",
        "values": [a / b for a, b in zip(rates["resident"], rates["torch"], strict=True)],
        "median": ratios["resident over torch"],
        "ratios": ratios,
        "targets": {name: target for name, (_, _, target) in asked.items()},
        "target": 10.0,
        "reached": all(ratios[name] >= target for name, (_, _, target) in asked.items()),
        "n": arguments.rounds,
        "images_per_second": rates,
        "median_images_per_second": {name: statistics.median(r) for name, r in rates.items()},
        "batch_size": batch_size,
        "torch": torch.__version__,
        "tensorflow": tf.__version__,
    }
    benchmark.write(result, arguments.out, "python scripts/bench_input.py --data_root=FOLDER")
    return 0


class PillowImages(torch.utils.data.Dataset):
    """Images through Pillow, one at a time, as torchvision's CIFAR10 and transforms do."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray):
        """Keeps the arrays; an image is made when it is asked for."""
        self.images, self.labels = images, labels
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (mean, std))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[i]), border=4, fill=0)
        left, top = random.randint(0, 8), random.randint(0, 8)
        image = image.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div_(255).sub_(self.mean).div_(self.std), int(
            self.labels[i]
        )


def torch_batches(
    images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray, batch_size: int
) -> Iterator[object]:
    loader = torch.utils.data.DataLoader(
        PillowImages(images, labels, mean, std),
        batch_size=batch_size,
        shuffle=True,
        num_workers=PEER_WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",  # JAX's threads do not survive a fork
        drop_last=True,
    )
    while True:
        for batch, _ in loader:
            yield batch


def tf_batches(
    images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray, batch_size: int
) -> Iterator[object]:
    def augment(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.pad(image, ((4, 4), (4, 4), (0, 0)))
        image = tf.image.random_flip_left_right(tf.image.random_crop(image, (32, 32, 3)))
        return (tf.cast(image, tf.float32) / 255 - mean) / std, label

    dataset = (
        tf.data.Dataset.from_tensor_slices((images, labels))
        .shuffle(10_000)
        .repeat()
        .map(augment, num_parallel_calls=PEER_WORKERS)
        .batch(batch_size, drop_remainder=True)
        .prefetch(2)
    )
    for batch, _ in dataset:
        yield batch.numpy()


if __name__ == "__main__":
    sys.exit(main())
