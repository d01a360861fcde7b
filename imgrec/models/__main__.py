"""python -m imgrec.models [PATTERN ...]: every registered model, what it costs, and its weights.

PATTERN is a name or a shell pattern ("*conv*"); without one all are listed, as they are counted,
which takes a fraction of a second each. Exit codes: 0 done, 2 a name or pattern that matches none.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from absl import flags

from imgrec import cli, models
from imgrec.config import ModelConfig
from imgrec.errors import UserError, nearest
from imgrec.models.cost import Cost
from imgrec.transfer import pretrained
from imgrec.transfer.pretrained import Pretrained

_USAGE = """usage: python -m imgrec.models [PATTERN ...] [FLAGS]

  PATTERN: a model's name or a shell pattern, as in "*conv*" (default: all)
"""

_COLUMNS = "{:<22} {:>13} {:>9} {:>12}   {}"


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    patterns, given = _parse(argv)
    if given.describe:
        row = _row(given.describe)
        print(json.dumps(_as_json(row), indent=2) if given.json else _paragraph(row))
        return 0
    names = _matching(patterns)
    if given.json:
        print(json.dumps([_as_json(_row(name)) for name in names], indent=2))
        return 0
    print(_COLUMNS.format("model", "parameters", "GFLOPs", "image", "weights").rstrip())
    for name in names:
        print(_line(_row(name)), flush=True)
    print(
        f"{len(names)} of {len(models.list_models())} models. GFLOPs are of the forward pass of "
        "one such image; a multiply-add is two operations. More of a model: --describe=NAME."
    )
    return 0


@dataclass(frozen=True)
class _Row:
    """A model with the number of classes that its paper counts."""

    description: models.Description
    cost: Cost
    weights: Mapping[str, Pretrained]


def _row(name: str) -> _Row:
    """What is known of one model.

    Raises:
      UserError: no such model.
    """
    description = models.describe(name)
    module = models.create(ModelConfig(name), description.parameters_classes)
    return _Row(
        description,
        models.cost_of(module, description.image_shape, computes=description.init_images > 0),
        pretrained.of_model(name),
    )


def _matching(patterns: Sequence[str]) -> list[str]:
    """Listed names that match any of the patterns, and names that only a family's pattern admits.

    Raises:
      UserError: a pattern that matches none.
    """
    listed = models.list_models()
    found: list[str] = []
    for pattern in patterns or ["*"]:
        names = models.list_models(pattern)
        if not names and not set("*?[") & set(pattern):
            names = [models.describe(pattern).name]  # which refuses what is no name
        if not names:
            guess = nearest(pattern.strip("*?"), listed)
            meant = f" Did you mean {guess!r}?" if guess else ""
            raise UserError(
                f"No model's name matches {pattern!r}.{meant} A pattern is of a whole name, as in "
                "'*conv*'; python -m imgrec.models lists all."
            )
        found += names
    return list(dict.fromkeys(found))


def _line(row: _Row) -> str:
    weights = ", ".join(_told(name, weights) for name, weights in row.weights.items())
    return _COLUMNS.format(
        row.description.name,
        f"{row.cost.parameters:,}",
        f"{row.cost.flops / 1e9:,.4g}",
        _shape(row),
        weights,
    ).rstrip()


def _told(name: str, weights: Pretrained) -> str:
    where = "installed" if pretrained.is_installed(weights) else pretrained.EXTRA
    return f"{name}: {weights.trained_on}, {where}"


def _shape(row: _Row) -> str:
    return "x".join(map(str, row.description.image_shape))


def _paragraph(row: _Row) -> str:
    lines = [
        str(row.description),
        f"  counted     {row.cost.parameters:,} parameters and {row.cost.flops / 1e9:,.4g} GFLOPs "
        f"an image of {_shape(row)}, {row.description.parameters_classes} classes",
    ]
    for name, weights in row.weights.items():
        p = weights.preprocessing
        lines += [
            f"  weights     {_told(name, weights)}; --config.init.weights={name}",
            f"              top-1 {weights.top_1:.1%} as published; made for {p.image_size}x"
            f"{p.image_size} of the middle {p.crop_fraction:.1%}, {p.interpolation}, "
            f"mean {p.mean[0]:.4g}, standard deviation {p.std[0]:.4g}",
        ]
    return "\n".join(lines)


def _as_json(row: _Row) -> dict[str, Any]:
    return {
        **asdict(row.description),
        "counted_parameters": row.cost.parameters,
        "counted_flops": row.cost.flops,
        "weights": {
            name: {**asdict(weights), "installed": pretrained.is_installed(weights)}
            for name, weights in row.weights.items()
        },
    }


def _parse(argv: Sequence[str]) -> tuple[list[str], flags.FlagValues]:
    """The patterns and the flags."""
    given = flags.FlagValues()
    flags.DEFINE_bool("json", False, "print JSON", flag_values=given)
    flags.DEFINE_string("describe", "", "tell all of one model", flag_values=given)
    if cli.HELP & set(argv):
        print(_USAGE + cli.flag_help(given))
        sys.exit(0)
    return cli.read_flags(given, argv), given


if __name__ == "__main__":
    cli.run(main)
