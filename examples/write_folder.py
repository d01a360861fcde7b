"""Writes pictures into class folders, for a first run on a folder when none of yours is at hand.

    python examples/write_folder.py photos

600 pictures, 64x64, of one shape each (circle, square, triangle, star) in any colour on a busy
background: the procedural world `scenes`.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

from imgrec.data import scenes

SHAPES = ("circle", "square", "triangle", "star")


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=600)
    arguments = parser.parse_args()
    knobs = scenes.Knobs(
        shapes=SHAPES, resolution=64, background=("gradient", "stripes"), clutter=(0, 4)
    )
    for i in range(arguments.count):
        scene = scenes.scene(0, i, knobs)
        folder = arguments.folder / SHAPES[scene.label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes.render(scene)).save(folder / f"{i:04d}.png")
    print(f"{arguments.count} pictures in {arguments.folder}: {', '.join(SHAPES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
